"""Videos kept for the pictures: one PNG file each, the frames side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...small_model.rendered_clips.rendering import as_bytes


def save_frames(file: Path, video: Tensor) -> None:
    """Writes [N, H, W, 3] in [0, 1] as one strip."""
    file.parent.mkdir(parents=True, exist_ok=True)
    strip = torch.cat(list(video), dim=1)
    Image.fromarray(as_bytes(strip).numpy()).save(file)


def load_frames(file: Path, count: int) -> np.ndarray:
    """The strip's frames, uint8 [count, H, W, 3]."""
    return np.stack(np.split(np.asarray(Image.open(file).convert("RGB")), count, axis=1))
