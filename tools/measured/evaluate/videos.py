"""Of the saved videos: pictures side by side, and the words that the small model's classifier sees in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from ...small_model.rendered_clips.vocabulary import WORDS
from ..quality.pictures import COLUMNS, sheet

HEIGHT = 144


def frames_of(video: Path) -> np.ndarray:
    """uint8 [N, H, W, 3]."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def side_by_side(rows: Sequence[tuple[str, Path]]) -> Image.Image:
    """A row of frames, evenly spaced, for each video, below each other."""
    return sheet((name, _some(frames_of(video))) for name, video in rows)


def _some(frames: np.ndarray) -> np.ndarray:
    chosen = frames[np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)]
    width = round(HEIGHT * frames.shape[2] / frames.shape[1])
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, HEIGHT))) for frame in chosen])


def target_word_share(classify: Callable, video: Path, new_words: Sequence[str]) -> float | None:
    """The share of frames that show the new word; None where it is none that the classifier knows."""
    kinds = [(kind, word) for word in new_words for kind, words in WORDS.items() if word in words]
    if not kinds:
        return None
    seen = classify(torch.from_numpy(frames_of(video)) / 255)
    frames = list(zip(*(seen[kind] for kind, _ in kinds), strict=True))
    return sum(shown == tuple(word for _, word in kinds) for shown in frames) / len(frames)
