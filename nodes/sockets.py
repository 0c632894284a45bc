"""Socket types, categories and fields that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "STEM Inversion"
InversionSocket = io.Custom("STEM_INVERSION")
# An option that leaves a field to the preset.
OF_PRESET = "preset"


def steps_input() -> io.Int.Input:
    """Steps of a denoising run over an inversion."""
    return io.Int.Input(
        "steps",
        default=0,
        min=0,
        max=999,
        tooltip="Denoising steps. 0 takes those of the inversion; fewer are possible where they are a subset of its "
        "timesteps (25 or 10 of 50, for instance).",
    )


def tail_input() -> io.Combo.Input:
    """Where a schedule ends."""
    return io.Combo.Input(
        "tail",
        options=["alpha0", "zero"],
        default="alpha0",
        tooltip="Where denoising ends. alpha0: at the first noise level of the table, where the inversion began (exact "
        "round trip). zero: at no noise at all, as ComfyUI's samplers do.",
    )
