"""Frames moved along an optical flow, where that flow can be trusted, and how steady a video is along it.

A flow [n - 1, h, w, 2] is in pixels, (x, y). A *backward* flow belongs to the later of two frames: the pixel p of frame
n + 1 comes from p + flow(p) in frame n. A *forward* flow belongs to the earlier one and leads to the later one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import grid_sample

from .frames import Advance, unwatched

# A flow is consistent where |there and back|^2 < RELATIVE (|there|^2 + |back|^2) + ABSOLUTE (Sundaram et al. 2010).
RELATIVE, ABSOLUTE = 0.01, 0.5


@dataclass(frozen=True)
class WarpError:
    """Mean squared error x 1000 between a frame and the one before it, moved along the flow.

    Attributes:
        seen: over the pixels that the frame before shows; NaN if there are none.
        all: over every pixel.
        pairs: the former for each pair of frames, float64 [n - 1].
    """

    seen: float
    all: float
    pairs: Tensor


def sampled_at(maps: Tensor, flow: Tensor) -> Tensor:
    """Maps [n, h, w, c] read at p + flow(p), bilinearly, the border repeated: [n, h, w, c] float32."""
    height, width = maps.shape[1:3]
    rows, columns = (torch.arange(size, device=maps.device) + 0.5 for size in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    source = torch.stack([x, y], dim=-1) + flow.to(maps.device)
    grid = 2 * source / torch.tensor([width, height], device=maps.device) - 1
    planes = rearrange(maps, "n h w c -> n c h w").float()
    read = grid_sample(planes, grid.float(), mode="bilinear", padding_mode="border", align_corners=False)
    return rearrange(read, "n c h w -> n h w c")


def moved(video: Tensor, backward: Tensor) -> Tensor:
    """Each frame but the last, moved to where the next one has it: [n, h, w, c] -> [n - 1, h, w, c].

    backward: [n - 1, h, w, 2].
    """
    return sampled_at(video[:-1], backward)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Where a pixel of the later frame is seen in the earlier one, bool [n - 1, h, w].

    It has to come from inside the picture, and going there by the backward flow and back by the forward flow has to
    end where it began.
    """
    height, width = backward.shape[1:3]
    back = sampled_at(forward, backward)
    both = (backward + back).square().sum(dim=-1)
    allowed = RELATIVE * (backward.square().sum(dim=-1) + back.square().sum(dim=-1)) + ABSOLUTE
    rows, columns = (torch.arange(size, device=backward.device) for size in (height, width))
    x, y = columns + backward[..., 0], rows[:, None] + backward[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & (both < allowed)


def warp_error(video: Tensor, backward: Tensor, seen: Tensor, advance: Advance = unwatched) -> WarpError:
    """How far a video [n, h, w, c] is from moving along a flow; n is 2 at least.

    backward: [n - 1, h, w, 2]. seen: bool [n - 1, h, w], the pixels that count.
    """
    sums = []  # over the pixels that count, and over all
    for n, where in enumerate(seen):
        error = (video[n + 1].double() - moved(video[n : n + 2], backward[n : n + 1])[0].double()).square().mean(dim=-1)
        sums.append(torch.stack([error[where].sum(), error.sum()]))
        advance(1)
    of_pairs, counted = torch.stack(sums), seen.flatten(1).sum(dim=1)
    of_seen, of_all = of_pairs.sum(dim=0)
    return WarpError(
        1e3 * float(of_seen / counted.sum()), 1e3 * float(of_all / seen.numel()), 1e3 * of_pairs[:, 0] / counted
    )
