"""What is measured of a video: closeness to another, steadiness along the true motion, and what it shows.

Videos are [N, H, W, 3] in [0, 1]. Results are floats for the whole video, or tensors for each frame where so said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.nn.functional import max_pool2d

from ....nodes.metrics.closeness import SMALLEST_ERROR, check_shapes, psnr, ssim
from ....nodes.metrics.warping import moved, warp_error
from ...small_model.rendered_clips import Clip

# A video to the words of each kind ("object", "style", "colour") that its frames show.
Classifier = Callable[[Tensor], Mapping[str, Sequence[str]]]

# How far from the border of a mask its seam reaches, in pixels.
SEAM = 6


def closeness(video: Tensor, truth: Tensor) -> dict[str, float]:
    """psnr in dB and ssim, each the mean over frames."""
    return {"psnr": float(psnr(video, truth).mean()), "ssim": float(ssim(video, truth).mean())}


def region_psnr(video: Tensor, truth: Tensor, region: Tensor) -> float:
    """PSNR in dB over the pixels of a region [N, H, W] bool, the mean over the frames that have any; NaN if none."""
    check_shapes(video, truth)
    error = (video.double() - truth.double()).square().mean(dim=-1)  # [N, H, W]
    count = region.sum(dim=(1, 2))
    mean = (error * region).sum(dim=(1, 2))[count > 0] / count[count > 0]
    return float((-10 * mean.clamp_min(SMALLEST_ERROR).log10()).mean())


def motion_measures(video: Tensor, clip: Clip) -> dict[str, float]:
    """Steadiness along the motion of `clip`: warp errors, and the SSIM of moved frames to the next (consistency)."""
    error = warp_error(video, clip.backward, clip.backward_seen)
    consistency = float(ssim(video[1:].float(), moved(video, clip.backward)).mean())
    return {"warp_error": error.seen, "warp_error_all": error.all, "consistency": consistency}


def word_shares(shown: Mapping[str, Sequence[str]], wanted: Mapping[str, str], changed: str) -> dict[str, float]:
    """Shares of frames that show the word of the kind `changed`, and all the words that should have stayed.

    shown: words of every frame, by kind. wanted: the right word, by kind.
    """
    kept = [kind for kind in wanted if kind != changed]
    frames = range(len(shown[changed]))
    return {
        "target_word": sum(shown[changed][n] == wanted[changed] for n in frames) / len(frames),
        "kept_words": sum(all(shown[kind][n] == wanted[kind] for kind in kept) for n in frames) / len(frames),
    }


def edit_measures(
    video: Tensor, truth: Clip, source_masks: Tensor, changed: str, classify: Classifier | None
) -> dict[str, float]:
    """All measures of an edited video. source_masks: [N, H, W] bool, where the thing was seen before the edit."""
    touched = truth.masks | source_masks
    found = closeness(video, truth.frames)
    found["psnr_inside"] = region_psnr(video, truth.frames, touched)
    found["psnr_outside"] = region_psnr(video, truth.frames, ~touched)
    return found | appearance(video, truth, changed, classify)


def mask_measures(video: Tensor, source: Clip, truth: Clip, mask: Tensor) -> dict[str, float]:
    """Of a video that was to change only where a mask [N, H, W] is above 0: `psnr_kept`, how close the rest is to the
    source, and `warp_seam`, the warp error near the mask's border."""
    near, planes = 2 * SEAM + 1, mask[:, None]
    grown = max_pool2d(planes, near, 1, SEAM)[:, 0]
    shrunk = -max_pool2d(-planes, near, 1, SEAM)[:, 0]
    seam = truth.backward_seen & (grown > shrunk)[1:]
    kept = region_psnr(video, source.frames, mask == 0)
    return {"psnr_kept": kept, "warp_seam": warp_error(video, truth.backward, seam).seen}


def appearance(video: Tensor, truth: Clip, changed: str, classify: Classifier | None) -> dict[str, float]:
    """The measures that do not compare pixels with the truth: steadiness and, where there is a classifier, words."""
    found = motion_measures(video, truth)
    if classify is not None:
        (thing,) = truth.scene.things
        wanted = {kind: getattr(thing, kind) for kind in ("object", "style", "colour")}
        found |= word_shares(classify(video), wanted, changed)
    return found
