"""Optical flow between consecutive frames: OpenCV's DIS, or RAFT with weights that the user has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .frames import Advance, unwatched
from .warping import visible

DIS = "DIS"
# DIS looks at pyramids of 8x8 patches.
SMALLEST_SIDE = 16
# RAFT correlates at an eighth of the resolution, in a pyramid of four levels.
_RAFT_MULTIPLE, _RAFT_SIDE = 8, 128


@dataclass(frozen=True)
class OpticalFlow:
    """Motion of a video of n frames.

    Attributes:
        forward, backward: [n - 1, h, w, 2] float32, see `warping`.
        seen: bool [n - 1, h, w], pixels of the later frame that the earlier one shows (`warping.visible`).
        name: what estimated it.
    """

    forward: Tensor
    backward: Tensor
    seen: Tensor
    name: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width of the video."""
        pairs, height, width, _ = self.backward.shape
        return pairs + 1, height, width


def estimate(
    video: Tensor, between: Callable[[Tensor, Tensor], Tensor], name: str, advance: Advance = unwatched
) -> OpticalFlow:
    """The flow of a video [n, h, w, 3] in [0, 1] by `between`, which gives that from one frame to another.

    Raises:
        ValueError: one frame alone has no motion, or the frames are too small to see any.
    """
    if video.shape[0] < 2:
        raise ValueError("Optical flow: a video of 1 frame has no motion. Select at least 2 frames.")
    if min(video.shape[1:3]) < SMALLEST_SIDE:
        raise ValueError(
            f"Optical flow: frames of {video.shape[2]}x{video.shape[1]} pixels are too small to see motion in; each "
            f"side needs at least {SMALLEST_SIDE} pixels. Use larger frames."
        )
    forward, backward, seen = [], [], []
    for earlier, later in zip(video, video[1:], strict=False):
        there, back = between(earlier, later), between(later, earlier)
        forward.append(there)
        backward.append(back)
        seen.append(visible(there[None], back[None])[0])
        advance(1)
    return OpticalFlow(torch.stack(forward), torch.stack(backward), torch.stack(seen), name)


def dis(first: Tensor, second: Tensor) -> Tensor:
    """Dense inverse search (Kroeger et al. 2016) by OpenCV, [h, w, 3] twice -> [h, w, 2]."""
    import cv2

    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pixels = ((frame.clamp(0, 1) * 255).round().to(torch.uint8).numpy() for frame in (first, second))
    earlier, later = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in pixels)
    return torch.from_numpy(search.calc(earlier, later, None))


def raft(weights: dict[str, Tensor], device: torch.device | str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
    """RAFT (Teed & Deng 2020) by torchvision, small or large, as the weights are; for `estimate`.

    Raises:
        ValueError: the weights are not those of torchvision's RAFT.
    """
    from torchvision.models.optical_flow import raft_large, raft_small

    network = (raft_small if _is_small(weights) else raft_large)(weights=None)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            "Optical flow: these are not the weights of torchvision's raft_small or raft_large "
            f"({str(error).splitlines()[-1].strip()[:200]}). Save its state_dict as safetensors."
        ) from None
    network = network.eval().to(device)

    def between(first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[:2]
        flow = network(_padded(first).to(device), _padded(second).to(device))[-1].cpu()
        return rearrange(flow, "1 xy h w -> h w xy")[:height, :width].contiguous()

    return between


def raft_bytes(weights: dict[str, Tensor], height: int, width: int) -> int:
    """The most bytes that RAFT with these weights holds at a time for frames of a size, as counted."""
    height, width = _padded_side(height), _padded_side(width)
    volume = 4 * (height * width // _RAFT_MULTIPLE**2) ** 2
    # twice while correlations are divided, or with its pyramid while features are matched
    held = max(2 * volume + 56 * height * width, 4 / 3 * volume + (226 if _is_small(weights) else 376) * height * width)
    return int(held) + sum(weight.nbytes for weight in weights.values())


def weight_files(folder: Path) -> list[str]:
    """Names of the safetensors in a folder, which need not exist."""
    return sorted(file.name for file in folder.glob("*.safetensors")) if folder.is_dir() else []


def _padded(frame: Tensor) -> Tensor:
    """[h, w, 3] in [0, 1] -> [1, 3, h', w'] in [-1, 1], as RAFT wants it, padded at the right and the bottom."""
    height, width = frame.shape[:2]
    sides = [_padded_side(side) for side in (height, width)]
    planes = 2 * rearrange(frame, "h w c -> 1 c h w") - 1
    return torch.nn.functional.pad(planes, (0, sides[1] - width, 0, sides[0] - height), mode="replicate")


def _padded_side(side: int) -> int:
    return max(_RAFT_SIDE, -(-side // _RAFT_MULTIPLE) * _RAFT_MULTIPLE)


def _is_small(weights: dict[str, Tensor]) -> bool:
    first = weights.get("feature_encoder.convnormrelu.0.weight")
    return first is not None and first.shape[0] == 32
