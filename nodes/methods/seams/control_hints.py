"""ControlNets of an edit whose passes hold some of the frames: every pass gets the hints of its own frames.

ComfyUI cuts or repeats hints to the number of rows of a call, which is right only where a call holds all frames.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from comfy.controlnet import ControlLora, ControlNet, T2IAdapter
from torch import Tensor

# Other classes may keep something for each frame where it cannot be seen.
_KNOWN = (ControlNet, ControlLora, T2IAdapter)


def check_controls(control: Any, frames: int, role: str, purpose: str) -> None:
    """Raise unless the hints of a ControlNet, and of those before it, can be given to the frames they belong to."""
    for one in _chain(control):
        kind = f"{type(one).__module__}.{type(one).__name__}"
        if type(one) not in _KNOWN:
            raise ValueError(
                f"{purpose}: the ControlNet of the {role} conditioning is of a kind that this pack does not know "
                f"({kind}); it may hold per-frame data that the passes of an edit would mix up. Use a ControlNet, a "
                "Control-LoRA or a T2I adapter from ComfyUI's Load ControlNet Model."
            )
        if one.extra_hooks is not None:
            raise ValueError(
                f"{purpose}: the ControlNet of the {role} conditioning carries hooks, which change the weights of the "
                "MODEL between the passes of an edit. Remove the hooks."
            )
        for what, rows in (
            ("hint images", one.cond_hint_original),
            *(("masks", part) for part in one.extra_concat_orig),
        ):
            if len(rows) not in (1, frames):
                raise ValueError(
                    f"{purpose}: the ControlNet of the {role} conditioning has {len(rows)} {what} for {frames} frames, "
                    "so it is unclear which belongs to which frame. Give Apply ControlNet one image per frame of the "
                    "INVERSION, or one for all."
                )


def controlled_by(prompts: list[list], conditioning: list, frames: int, purpose: str) -> list[list]:
    """CONDITIONINGs of some prompts with the ControlNet of another one, whose own prompt is not read.

    Raises:
        ValueError: it has none, or one that cannot be used (see `check_controls`).
    """
    control = next((options["control"] for _, options in conditioning if options.get("control") is not None), None)
    if control is None:
        raise ValueError(
            f"{purpose}: the conditioning connected to controlnet has no ControlNet. Put Apply ControlNet before it, "
            "or disconnect it."
        )
    check_controls(control, frames, "connected", purpose)
    return [[[embedding, {**options, "control": control}] for embedding, options in prompt] for prompt in prompts]


def own_controls(conditionings: dict[str, list]) -> dict[str, list]:
    """The same CONDITIONINGs with copies of their ControlNets, so that nothing of a run is left on those of the user.

    ControlNets that several conditionings share stay shared; networks and hints are not copied.
    """
    copies: dict[int, Any] = {}
    return {
        role: [[embedding, _with_copy(options, copies)] for embedding, options in conditioning]
        for role, conditioning in conditionings.items()
    }


def controls_of_frames(conds: list, frames: Tensor) -> list:
    """The conds of a pass, with the hints of its frames: int64 numbers on the CPU. A cond may be None."""
    copies: dict[int, Any] = {}
    return [cond and [_with_copy(options, copies, frames) for options in cond] for cond in conds]


def without_controls(cond: list) -> list:
    """A cond without its ControlNet."""
    return [{key: value for key, value in options.items() if key != "control"} for options in cond]


def _with_copy(options: dict, copies: dict[int, Any], frames: Tensor | None = None) -> dict:
    control = options.get("control")
    return options if control is None else {**options, "control": _copy(control, copies, frames)}


def _copy(control: Any, copies: dict[int, Any], frames: Tensor | None) -> Any:
    """A ControlNet and those before it, of all frames or of some. Shallow: what ComfyUI has prepared is shared."""
    if control is None:
        return None
    if id(control) not in copies:
        found = copies[id(control)] = copy.copy(control)
        found.set_previous_controlnet(_copy(control.previous_controlnet, copies, frames))
        # what ComfyUI makes of the hints at the first call
        found.cond_hint = None
        if frames is not None:
            found.cond_hint_original = _rows(control.cond_hint_original, frames)
            found.extra_concat_orig = [_rows(part, frames) for part in control.extra_concat_orig]
    return copies[id(control)]


def _rows(rows: Tensor, frames: Tensor) -> Tensor:
    return rows if len(rows) == 1 else rows[frames.to(rows.device)]


def _chain(control: Any) -> Iterator[Any]:
    while control is not None:
        yield control
        control = control.previous_controlnet
