"""The shipped workflow in API form: what the demo fills in and what it reads off the result. Nodes go by title."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from ...nodes.video.frame_selection import exact_rate
from .errors import DemoError

SOURCE, ROUND_TRIP, RECONSTRUCTION, EDIT = "source", "VAE round trip", "reconstruction", "edit"
SAVES = {name: f"Save {name}" for name in (SOURCE, ROUND_TRIP, RECONSTRUCTION, EDIT)}
STAGES = {"inversion": "STEM Inversion", "reconstruction": "Reconstruct", "edit": "TokenFlow Edit"}
# With the tiny checkpoint a processor shall do, in a minute; a height of 0 follows the width.
SMALL = {
    ("Video Load", "width"): 224,
    ("Video Load", "height"): 0,
    ("Video Load", "frame_cap"): 16,
    ("STEM Inversion", "steps"): 12,
}
# With the trained small model and its own clip: its size, and no words or guidance that it has not learned.
EXAMPLE = {
    ("Video Load", "width"): 128,
    ("Video Load", "height"): 128,
    ("Video Load", "frame_cap"): 16,
    ("STEM Inversion", "steps"): 20,
    ("Negative prompt", "text"): "",
    ("TokenFlow Edit", "cfg"): 4.0,
    ("TokenFlow Edit", "batch_size"): 4,
}


@dataclass(frozen=True)
class Wish:
    """An edit. label: its name in the outputs. prompt: of what the clip is to become; None for the workflow's own."""

    label: str = EDIT
    prompt: str | None = None


@dataclass(frozen=True)
class Choices:
    """A run's files, prompts and edits; a prompt that is None stays as the workflow has it.

    settings: of the workflow's fields by (title, name), such as SMALL.
    example: whether `video` is the rendered clip, which is then written there first.
    """

    video: Path
    checkpoint: Path
    source_prompt: str | None = None
    wishes: tuple[Wish, ...] = (Wish(),)
    settings: Mapping[tuple[str, str], object] = field(default_factory=dict)
    example: bool = False


def load(file: Path) -> dict[str, dict]:
    """Reads a workflow in API form."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DemoError(f"The workflow {file} cannot be read: {error}") from None


def node_titled(prompt: Mapping[str, dict], title: str) -> str:
    """The id of the one node with this title."""
    found = [node for node, entry in prompt.items() if entry.get("_meta", {}).get("title") == title]
    if len(found) != 1:
        raise DemoError(f"The workflow has {len(found)} nodes titled {title!r}; the demo needs exactly one.")
    return found[0]


def fill_in(prompt: Mapping[str, dict], choices: Choices, wish: Wish, uploaded: str) -> dict[str, dict]:
    """A copy of the workflow with the uploaded video, the checkpoint, the prompts and the settings filled in."""
    values = {
        ("Video Load", "file"): uploaded,
        ("Load Checkpoint", "ckpt_name"): choices.checkpoint.name,
        ("Source prompt", "text"): choices.source_prompt,
        ("Target prompt", "text"): wish.prompt,
        **choices.settings,
    }
    filled = copy.deepcopy(dict(prompt))
    for (title, name), value in values.items():
        inputs = filled[node_titled(filled, title)]["inputs"]
        if name not in inputs:
            raise DemoError(f"The workflow's node {title!r} has no input {name!r}, only {', '.join(inputs)}.")
        if value is not None:
            inputs[name] = value
    return filled


def outputs_by_title(
    prompt: Mapping[str, dict], outputs: Mapping[str, dict], names: Iterable[str] = tuple(SAVES)
) -> dict[str, list]:
    """The files that the save nodes wrote, by what they show. names: those that are wanted, of SAVES."""
    files = {name: outputs.get(node_titled(prompt, SAVES[name]), {}).get("images", []) for name in names}
    for name, listed in files.items():
        if not listed:
            raise DemoError(f"The workflow's node {SAVES[name]!r} saved no pictures.")
    return files


def steps_of(prompt: Mapping[str, dict]) -> int:
    """The number of inversion steps."""
    return prompt[node_titled(prompt, STAGES["inversion"])]["inputs"]["steps"]


def seconds_of(prompt: Mapping[str, dict], seconds_by_node: Mapping[str, float]) -> dict[str, float]:
    """How long each stage took."""
    return {stage: seconds_by_node.get(node_titled(prompt, title), 0.0) for stage, title in STAGES.items()}


def playback_rate(prompt: Mapping[str, dict], video: Path) -> Fraction:
    """Frames a second at which the loaded frames show the clip at its own pace."""
    inputs = prompt[node_titled(prompt, "Video Load")]["inputs"]
    rate = exact_rate(inputs.get("target_fps", 0))
    if rate is None:
        with av.open(str(video)) as container:
            rate = container.streams.video[0].average_rate or Fraction(25)
    return rate / max(1, int(inputs.get("every_nth") or 1))
