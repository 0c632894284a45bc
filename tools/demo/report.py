"""The demo's report: what ran, how long it took, what it needed, and how close the reconstruction is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ...batch.comfyui.memory import Memory
from ...nodes.metrics import closeness as video_metrics
from .workflow import RECONSTRUCTION, ROUND_TRIP, SOURCE, Choices


def closeness(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean PSNR in dB and mean SSIM of two videos, uint8 [N, H, W, 3], rounded as they are reported."""
    x, y = (torch.from_numpy(video).float() / 255 for video in (a, b))
    return round(float(video_metrics.psnr(x, y).mean()), 2), round(float(video_metrics.ssim(x, y).mean()), 4)


def make(
    choices: Choices,
    steps: int,
    frames: Mapping[str, np.ndarray],
    seconds: Mapping[str, float],
    device: str,
    memory: Memory,
    truths: Mapping[str, np.ndarray] | None = None,
) -> dict:
    """The report of a run. frames: uint8 [N, H, W, 3] by name. truths: what edits should be, by label, where known."""
    count, height, width = frames[SOURCE].shape[:3]
    made = {
        "video": choices.video.name,
        "frames": count,
        "width": width,
        "height": height,
        "steps": steps,
        "edited": [wish.label for wish in choices.wishes],
        "checkpoint": choices.checkpoint.name,
        "device": device,
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        **memory.as_dict(),
    }
    for against, name in ((SOURCE, "source"), (ROUND_TRIP, "vae")):
        psnr, ssim = closeness(frames[RECONSTRUCTION], frames[against])
        made |= {f"psnr_vs_{name}": psnr, f"ssim_vs_{name}": ssim}
    for label, truth in (truths or {}).items():
        psnr, ssim = closeness(frames[label], truth)
        untouched, _ = closeness(frames[ROUND_TRIP], truth)
        known = {"psnr_vs_truth": psnr, "ssim_vs_truth": ssim, "psnr_of_no_edit": untouched}
        made.setdefault("edits", {})[label] = known
    return made


def as_text(made: Mapping) -> str:
    """The report for the terminal."""
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in made["seconds"].items())
    memory = f"{made['peak_memory_mb']:.0f} MB"
    if "device_memory_mb" in made:
        memory += f", {made['device_memory_mb']:.0f} MB on the device"
    return "\n".join(
        [
            "",
            f"clip            {made['video']}: {made['frames']} frames of {made['width']}x{made['height']}",
            f"checkpoint      {made['checkpoint']} on {made['device']}, {made['steps']} steps",
            f"seconds         {seconds}",
            f"peak memory     {memory}",
            f"reconstruction  {made['psnr_vs_source']:.1f} dB, SSIM {made['ssim_vs_source']:.3f} against the source",
            f"                {made['psnr_vs_vae']:.1f} dB, SSIM {made['ssim_vs_vae']:.3f} against the VAE round trip",
            *(
                f"{label:<22}{edit['psnr_vs_truth']:.1f} dB, SSIM {edit['ssim_vs_truth']:.3f} against the true edit "
                f"(no edit: {edit['psnr_of_no_edit']:.1f} dB)"
                for label, edit in made.get("edits", {}).items()
            ),
        ]
    )
