"""What ComfyUI versions newer than 0.3.75 know or do otherwise: used where it is there, left out elsewhere.

What a ComfyUI can do is asked of ComfyUI itself, never of its version number.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_management
from comfy_api.latest import ComfyAPI, Input, io


def advanced() -> dict[str, Any]:
    """Hides an input behind "show advanced", where ComfyUI can."""
    return {"advanced": True} if "advanced" in inspect.signature(io.Int.Input.__init__).parameters else {}


def found_by(*aliases: str) -> dict[str, Any]:
    """Words that find a node in the search beside its name, where ComfyUI can."""
    return {"search_aliases": list(aliases)} if "search_aliases" in inspect.signature(io.Schema).parameters else {}


def essential() -> dict[str, Any]:
    """Shows a node among ComfyUI's own essential ones for videos, where ComfyUI has such a tab."""
    known = "essentials_category" in inspect.signature(io.Schema).parameters
    return {"essentials_category": "Video Tools"} if known else {}


async def register_replacements(replacements: Sequence[Mapping[str, Any]]) -> None:
    """Lets ComfyUI put nodes of ours in the place of those that old workflows name, where ComfyUI can.

    Args:
        replacements: arguments of ComfyUI's `io.NodeReplace`: new_node_id, old_node_id, and where they changed
            old_widget_ids (all widgets of the old node, in order), input_mapping and output_mapping.
    """
    if hasattr(io, "NodeReplace"):
        for replacement in replacements:
            await ComfyAPI().node_replacement.register(io.NodeReplace(**replacement))


def free_memory(patcher: Any, device: Any) -> float:
    """Bytes that a device has free for computing; newer versions add the weights that they would give up for it.

    Args:
        patcher: of the network that runs (its `current_patcher`).
    """
    return getattr(patcher, "get_free_memory", comfy.model_management.get_free_memory)(device)


def runs_on_several_devices(model: Any) -> bool:
    """Whether ComfyUI runs the conditionings of a MODEL on several devices at the same time."""
    return bool(model.get_additional_models_with_key("multigpu"))


def is_unedited_file(video: Input.Video) -> bool:
    """Whether the stream source is a file with just the video's frames. The default one is a new encoding."""
    if type(video).get_stream_source is Input.Video.get_stream_source:
        return False
    # A VIDEO can be trimmed and cropped without touching the file behind it.
    if getattr(video, "has_pending_frame_edits", lambda: False)():
        return False
    if hasattr(video, "get_active_trim_window"):
        return not any(video.get_active_trim_window())
    return not hasattr(video, "as_trimmed")
