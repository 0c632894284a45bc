"""Socket types, categories and fields that several nodes share."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..methods.seams.comfyui_versions import advanced

CATEGORY = "STEM Inversion"
InversionSocket = io.Custom("STEM_INVERSION")
FlowSocket = io.Custom("STEM_FLOW")
# What people look for who look for an editor of videos.
EDIT_ALIASES = ("video edit", "vid2vid", "style transfer", "restyle")
# The videos that Compare Videos takes.
COMPARED = ("first", "second", "third", "fourth")
# An option that leaves a field to the preset.
OF_PRESET = "preset"


def edit_inputs() -> list[io.Input]:
    """What every edit starts from: its MODEL and an INVERSION."""
    return [
        io.Model.Input("model", tooltip="The model of the edit: the inversion's checkpoint, with a LoRA if you like."),
        InversionSocket.Input("inversion", tooltip="From STEM Inversion Sampler."),
    ]


def prompt_input(name: str, tooltip: str) -> io.String.Input:
    """A text of several lines, in which ComfyUI's page draws one of {a|b} and leaves out comments."""
    return io.String.Input(name, multiline=True, default="", dynamic_prompts=True, tooltip=tooltip)


def check_target_prompt(text: str, purpose: str, which: str = "the target prompt") -> None:
    """Raise if a target prompt is empty."""
    if not text.strip():
        raise ValueError(f"{purpose}: {which} is empty. Write what the edited video should show.")


def seed_input(default: int, tooltip: str, draws: bool, **more: Any) -> io.Int.Input:
    """A seed; where it `draws`, the page draws another one after each run unless told otherwise."""
    limits = {"min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": draws}
    return io.Int.Input("seed", default=default, tooltip=tooltip, **limits, **more)


def mask_input() -> io.Mask.Input:
    """Where an edit may change the frames."""
    return io.Mask.Input(
        "edit_mask",
        optional=True,
        tooltip="Edit only where this mask is white: one mask for all frames or one for each, of any size. Outside it, "
        "the source's latents are restored at every step; ImageCompositeMasked can restore its pixels too.",
    )


def guidance_input(**more: Any) -> io.Float.Input:
    """Guidance of an edit."""
    return io.Float.Input(
        "cfg",
        default=7.5,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip="Guidance scale: higher follows the target prompt more and the source less.",
        **more,
    )


def guidance_interval(end: float = 1.0, more: str = "") -> list[io.Input]:
    """The part of the steps in which guidance acts, named as ComfyUI's CFG Override names it.

    end: default of its end; more: what else to say of it.
    """
    return [
        _percent("cfg_start_percent", 0.0, "Share of the steps, from the noisy end, before which cfg is 1."),
        _percent(
            "cfg_end_percent",
            end,
            "Share of the steps, from the noisy end, after which cfg is 1: the negative prompt is not run, and a step "
            f"takes less time. Lower keeps more of the source and gives steadier motion. {more}".rstrip(),
        ),
    ]


def guidance_window(fields: dict[str, Any]) -> tuple[float, float]:
    """Takes the fields of `guidance_interval` out of a node's; a workflow saved before they came has neither."""
    return fields.pop("cfg_start_percent", 0.0), fields.pop("cfg_end_percent", 1.0)


def _percent(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name, default=default, min=0.0, max=1.0, step=0.05, round=0.001, optional=True, tooltip=tooltip, **advanced()
    )


def choice(name: str, options: list[str], tooltip: str, **more: Any) -> io.Combo.Input:
    """A field with a list of options, the first of them by default."""
    return io.Combo.Input(name, options=options, default=options[0], tooltip=tooltip, **more)


def steps_input() -> io.Int.Input:
    """Steps of a denoising run over an inversion."""
    return io.Int.Input(
        "steps",
        default=0,
        min=0,
        max=999,
        tooltip="Denoising steps. 0 uses the inversion's; fewer work only if their timesteps are among the inversion's "
        "(25 or 10 of 50, for example).",
    )


def tail_input(**more: Any) -> io.Combo.Input:
    """Where a schedule ends."""
    return choice(
        "tail",
        ["alpha0", "zero"],
        "Where denoising ends. alpha0: at the first noise level of the table, where the inversion began, so the round "
        "trip ends where it started. zero: at no noise at all, like ComfyUI's samplers.",
        display_name="end_at",
        **advanced(),
        **more,
    )
