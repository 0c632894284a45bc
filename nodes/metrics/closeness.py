"""How close two videos are: peak signal-to-noise ratio and structural similarity, frame by frame."""

from __future__ import annotations

import torch
from einops import rearrange
from kornia.metrics import ssim as ssim_map
from torch import Tensor

from .frames import Advance, unwatched

# The error at which PSNR is capped, far below what 8-bit pixels can show, so that one identical frame does not make a
# video's mean infinite.
SMALLEST_ERROR = 1e-10
WINDOW = 11


def psnr(a: Tensor, b: Tensor, advance: Advance = unwatched) -> Tensor:
    """Peak signal-to-noise ratio of each frame, 10·log10(1 / MSE), in dB.

    a, b: [N, H, W, C] floating-point values in [0, 1]. Returns [N] float64, at most 100 dB (identical frames).
    ValueError when the shapes differ.
    """
    check_shapes(a, b)
    errors = []
    for x, y in zip(a, b, strict=True):
        errors.append((x.double() - y.double()).square().mean())
        advance(1)
    return -10 * torch.stack(errors).clamp_min(SMALLEST_ERROR).log10()


def ssim(a: Tensor, b: Tensor, advance: Advance = unwatched) -> Tensor:
    """Structural similarity of each frame, the mean over pixels and channels of

        (2 μa μb + c1)(2 σab + c2) / ((μa² + μb² + c1)(σa² + σb² + c2)),   c1 = 0.01², c2 = 0.03²,

    with means and covariances under an 11x11 Gaussian window of standard deviation 1.5, at the pixels that have the
    whole window around them (Wang et al. 2004).

    a, b: [N, H, W, C] floating-point values in [0, 1]. Returns [N] float64 in [-1, 1].
    ValueError when the shapes differ or a side is shorter than the window.
    """
    check_shapes(a, b)
    if min(a.shape[1:3]) < WINDOW:
        raise ValueError(
            f"Frames of {a.shape[2]}x{a.shape[1]} pixels are smaller than the {WINDOW}x{WINDOW} window of SSIM. "
            "Compare larger frames."
        )
    means = []
    for frames in zip(a, b, strict=True):
        # float64, because variances are small differences of large numbers
        x, y = (rearrange(frame.double(), "h w c -> 1 c h w") for frame in frames)
        means.append(ssim_map(x, y, WINDOW, padding="valid").mean())
        advance(1)
    return torch.stack(means)


def check_shapes(a: Tensor, b: Tensor) -> None:
    """ValueError unless both are [N, H, W, C] with the same sizes and at least one frame."""
    if a.ndim != 4 or a.shape != b.shape or a.shape[0] == 0:
        raise ValueError(
            f"Videos of the shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared frame by frame: "
            "both must be [N, H, W, C] with equal sizes and at least one frame."
        )
