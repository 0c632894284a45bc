"""The shipped workflow in API form: what the demo fills in, adds, and reads off the result. Nodes go by title."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av

from ...nodes.video.frame_selection import exact_rate

SOURCE, ROUND_TRIP, RECONSTRUCTION, EDIT = "source", "VAE round trip", "reconstruction", "edit"
SAVES = {name: f"Save {name}" for name in (SOURCE, ROUND_TRIP, RECONSTRUCTION, EDIT)}
Field = tuple[str, str]


class DemoError(RuntimeError):
    """The demo cannot go on; the message says what was found and what to do."""


@dataclass(frozen=True)
class Workflow:
    """A shipped workflow, and the fields (title, name) that the demo fills in.

    name: of the file.
    inversion, edit: titles of the nodes that do these.
    source, target: where the prompts go.
    settings: for the small model, which knows no negative words and needs little guidance.
    """

    name: str
    inversion: str
    edit: str
    source: Field
    target: Field
    settings: Mapping[Field, object] = field(default_factory=dict)

    @property
    def stages(self) -> dict[str, str]:
        """Titles of the nodes that are timed."""
        return {"inversion": self.inversion, "reconstruction": "Reconstruct", "edit": self.edit}


TOKENFLOW = Workflow(
    "stem_tokenflow_edit",
    "STEM Inversion",
    "TokenFlow Edit",
    ("Source prompt", "text"),
    ("Target prompt", "text"),
    {("Negative prompt", "text"): "", ("TokenFlow Edit", "cfg"): 4.0},
)
DDIM_FATEZERO = Workflow(
    "ddim_fatezero_edit",
    "DDIM Inversion",
    "FateZero Edit",
    ("Source prompt", "value"),
    ("FateZero Edit", "target_prompt"),
    {("FateZero Edit", "negative_prompt"): "", ("FateZero Edit", "cfg"): 4.0},
)
STEM_FATEZERO = replace(
    DDIM_FATEZERO,
    name="stem_fatezero_object",
    inversion="STEM Inversion",
    # few bases suit the few tokens of the small model's frames: docs/defaults.md
    settings={**DDIM_FATEZERO.settings, ("STEM Bases", "num_bases"): 64},
)
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
class Dimensions:
    """Of the clip as it is loaded, and of the inversion."""

    width: int
    height: int
    frames: int
    steps: int


SMALL_MODEL = Dimensions(width=128, height=128, frames=16, steps=20)
QUICK = Dimensions(width=128, height=128, frames=12, steps=12)


@dataclass(frozen=True)
class Choices:
    """A run's files, prompts and edits; a prompt that is None stays as the workflow has it.

    dimensions: None for the workflow's own; else the settings are those for the small model too.
    example: whether `video` is the rendered clip, which is then written there first.
    """

    video: Path
    checkpoint: Path
    source_prompt: str | None = None
    wishes: tuple[Wish, ...] = (Wish(),)
    dimensions: Dimensions | None = None
    example: bool = False


def load(file: Path) -> dict[str, dict]:
    """Reads an edit in API form, and adds what measures it."""
    try:
        return measured(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DemoError(f"The workflow {file} cannot be read: {error}") from None


def measured(prompt: Mapping[str, dict]) -> dict[str, dict]:
    """The workflow with a reconstruction, and pictures of the source, its round trip, reconstruction and edit."""
    vae = [node_titled(prompt, "Load Checkpoint"), 2]
    added: dict[str, dict] = {}

    def add(title: str, kind: str, **inputs: object) -> list:
        added[title] = node(kind, title, **inputs)
        return [title, 0]

    def decode(what: str, latent: list) -> list:
        return add(f"Decode {what}", "VAEDecode", samples=latent, vae=vae)

    rebuilt = add("Reconstruct", "STEMReconstruct", inversion=[node_of(prompt, "STEMInversionSampler"), 0], steps=0)
    pictures = {
        SOURCE: [node_titled(prompt, "Video Load"), 0],
        ROUND_TRIP: decode(ROUND_TRIP, [node_titled(prompt, "VAE Encode"), 0]),
        RECONSTRUCTION: decode(RECONSTRUCTION, rebuilt),
        EDIT: [node_titled(prompt, "Decode edit"), 0],
    }
    for name, images in pictures.items():
        add(SAVES[name], "SaveImage", images=images, filename_prefix=name.replace(" ", "_"))
    return {**prompt, **added}


def node(of_class: str, title: str, /, **inputs: object) -> dict:
    """A node of a workflow in API form."""
    return {"class_type": of_class, "inputs": inputs, "_meta": {"title": title}}


def node_of(prompt: Mapping[str, dict], of_class: str) -> str:
    """The id of the one node of a class."""
    (found,) = [number for number, entry in prompt.items() if entry["class_type"] == of_class]
    return found


def node_titled(prompt: Mapping[str, dict], title: str) -> str:
    """The id of the one node with this title."""
    found = [node for node, entry in prompt.items() if entry.get("_meta", {}).get("title") == title]
    if len(found) != 1:
        raise DemoError(f"The workflow has {len(found)} nodes titled {title!r}; the demo needs exactly one.")
    return found[0]


def fill_in(prompt: Mapping[str, dict], choices: Choices, wish: Wish, uploaded: str) -> dict[str, dict]:
    """A copy of the workflow with the uploaded video, the checkpoint, the prompts and the settings filled in."""
    workflow, dimensions = wish.workflow, choices.dimensions
    values = {("Video Load", "file"): uploaded, ("Load Checkpoint", "ckpt_name"): choices.checkpoint.name}
    values |= {workflow.source: choices.source_prompt, workflow.target: wish.prompt}
    if dimensions is not None:
        values |= {("Video Load", "width"): dimensions.width, ("Video Load", "height"): dimensions.height}
        values |= {("Video Load", "frame_cap"): dimensions.frames, (workflow.inversion, "steps"): dimensions.steps}
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
    return prompt[node_titled(prompt, workflow.inversion)]["inputs"]["steps"]


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
