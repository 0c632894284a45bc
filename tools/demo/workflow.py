"""The shipped workflow in API form: what the demo fills in and what it reads off the result. Nodes go by title."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av

from ...nodes.video.frame_selection import exact_rate

SOURCE, ROUND_TRIP, RECONSTRUCTION, EDIT = "source", "VAE round trip", "reconstruction", "edit"
SAVES = {name: f"Save {name}" for name in (SOURCE, ROUND_TRIP, RECONSTRUCTION, EDIT)}
Field = tuple[str, str]


class DemoError(RuntimeError):
    """The demo cannot go on; the message says what was found and what to do."""


@dataclass(frozen=True)
class Workflow:
    """A shipped workflow: its file, and the fields (title, name) that the demo fills in.

    name: of the file.
    source, target: where the prompts go.
    stages: titles of the nodes that are timed.
    settings: for the small model, which knows no negative words and needs little guidance.
    """

    name: str
    source: Field
    target: Field
    stages: Mapping[str, str]
    settings: Mapping[Field, object] = field(default_factory=dict)


def _fatezero(name: str, inversion: str, settings: Mapping[Field, object] = MappingProxyType({})) -> Workflow:
    return Workflow(
        name,
        ("Source prompt", "value"),
        ("FateZero Edit", "target_prompt"),
        {"inversion": inversion, "reconstruction": "Reconstruct", "edit": "FateZero Edit"},
        {("FateZero Edit", "negative_prompt"): "", ("FateZero Edit", "cfg"): 4.0, **settings},
    )


TOKENFLOW = Workflow(
    "stem_tokenflow_edit",
    ("Source prompt", "text"),
    ("Target prompt", "text"),
    {"inversion": "STEM Inversion", "reconstruction": "Reconstruct", "edit": "TokenFlow Edit"},
    {("Negative prompt", "text"): "", ("TokenFlow Edit", "cfg"): 4.0, ("TokenFlow Edit", "batch_size"): 4},
)
# few bases suit the few tokens of the small model's frames: docs/defaults.md
STEM_FATEZERO = _fatezero("stem_fatezero_object", "STEM Inversion", {("STEM Bases", "num_bases"): 64})
DDIM_FATEZERO = _fatezero("ddim_fatezero_edit", "DDIM Inversion")
WORKFLOWS = (TOKENFLOW, STEM_FATEZERO, DDIM_FATEZERO)


@dataclass(frozen=True)
class Wish:
    """An edit.

    label: its name in the outputs.
    prompt: of what the clip is to become; None for the workflow's own.
    workflow: that makes it.
    settings: of the workflow's fields, for this edit alone.
    """

    label: str = EDIT
    prompt: str | None = None
    workflow: Workflow = TOKENFLOW
    settings: Mapping[Field, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """Of the clip as it is loaded, and of the inversion."""

    width: int
    height: int
    frames: int
    steps: int


SMALL_MODEL = Size(width=128, height=128, frames=16, steps=20)


@dataclass(frozen=True)
class Choices:
    """A run's files, prompts and edits; a prompt that is None stays as the workflow has it.

    size: None for the workflow's own; else the settings are those for the small model too.
    example: whether `video` is the rendered clip, which is then written there first.
    """

    video: Path
    checkpoint: Path
    source_prompt: str | None = None
    wishes: tuple[Wish, ...] = (Wish(),)
    size: Size | None = None
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
    workflow, size = wish.workflow, choices.size
    values = {("Video Load", "file"): uploaded, ("Load Checkpoint", "ckpt_name"): choices.checkpoint.name}
    values |= {workflow.source: choices.source_prompt, workflow.target: wish.prompt}
    if size is not None:
        values |= {("Video Load", name): getattr(size, name) for name in ("width", "height")}
        values |= {("Video Load", "frame_cap"): size.frames, (workflow.stages["inversion"], "steps"): size.steps}
        values |= workflow.settings
    values |= wish.settings
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


def steps_of(prompt: Mapping[str, dict], workflow: Workflow) -> int:
    """The number of inversion steps."""
    return prompt[node_titled(prompt, workflow.stages["inversion"])]["inputs"]["steps"]


def seconds_of(
    prompt: Mapping[str, dict], workflow: Workflow, seconds_by_node: Mapping[str, float]
) -> dict[str, float]:
    """How long each stage took."""
    return {stage: seconds_by_node.get(node_titled(prompt, title), 0.0) for stage, title in workflow.stages.items()}


def playback_rate(prompt: Mapping[str, dict], video: Path) -> Fraction:
    """Frames a second at which the loaded frames show the clip at its own pace."""
    inputs = prompt[node_titled(prompt, "Video Load")]["inputs"]
    rate = exact_rate(inputs.get("target_fps", 0))
    if rate is None:
        with av.open(str(video)) as container:
            rate = container.streams.video[0].average_rate or Fraction(25)
    return rate / max(1, int(inputs.get("every_nth") or 1))
