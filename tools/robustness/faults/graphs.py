"""The shipped workflows at a small size, with a node that causes a fault in the way of a sampler's MODEL."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ... import locations
from ...demo.workflow import load, node, node_of, node_titled
from ...shipped.workflows import FOLDER

Prompt = dict[str, dict]
STEPS = 3
SETTINGS = {
    "Video Load": {"width": 80, "height": 56, "frame_cap": 3},
    "STEM Bases": {"num_bases": 16, "frames_per_batch": 2},
    "STEM Inversion": {"steps": STEPS},
    "DDIM Inversion": {"steps": STEPS},
    "TokenFlow Edit": {"batch_size": 2},
}
FAULT = "fault"


@dataclass(frozen=True)
class Sampler:
    """A sampler of the pack in one of the shipped workflows, and where a fault comes in.

    Attributes:
        name: for the table.
        workflow, node: file of the workflow; title of the node in which the fault is to happen.
        into: title of the node whose MODEL gets the fault.
        model_of: title of the node whose MODEL that is, where `into` has none yet.
        save: title of the node whose pictures are compared.
        within: the part of all calls of a place that belongs to `node`; the rest is that of other samplers.
        runs: whether the fault's MODEL is sampled by the node, or only its network is called.
        thorough: whether every place is tried, or some of each kind.
        changes: settings beside SETTINGS.
        other_weights: title of a node whose MODEL gets other weights as well, as by a LoRA.
    """

    name: str
    workflow: str
    node: str
    into: str
    save: str
    model_of: str = ""
    within: tuple[float, float] = (0.0, 1.0)
    runs: bool = True
    thorough: bool = True
    changes: Mapping[str, dict] = field(default_factory=dict)
    other_weights: str = ""


WHOLE = {"STEM Bases": {"frames_per_batch": 0}}
# An inversion's MODEL is also that of Reconstruct and of FateZero's source pass: the second half of the calls.
FIRST_HALF, SECOND_HALF = (0.0, 0.5), (0.5, 1.0)
SAMPLERS = (
    Sampler(
        "STEM Inversion Sampler, frames in batches",
        "stem_tokenflow_edit",
        "STEM Inversion",
        "STEM Inversion",
        "Save reconstruction",
        within=FIRST_HALF,
    ),
    Sampler(
        "STEM Inversion Sampler, all frames at once",
        "stem_tokenflow_edit",
        "STEM Inversion",
        "STEM Bases",
        "Save reconstruction",
        within=FIRST_HALF,
        changes=WHOLE,
        thorough=False,
    ),
    Sampler(
        "STEM Inversion Sampler, without STEM Bases",
        "ddim_tokenflow_edit",
        "DDIM Inversion",
        "DDIM Inversion",
        "Save reconstruction",
        within=FIRST_HALF,
        thorough=False,
    ),
    Sampler(
        "Reconstruct, frames in batches",
        "stem_tokenflow_edit",
        "Reconstruct",
        "Reconstruct",
        "Save reconstruction",
        model_of="STEM Bases",
        thorough=False,
    ),
    Sampler("TokenFlow Edit", "stem_tokenflow_edit", "TokenFlow Edit", "TokenFlow Edit", "Save edit"),
    Sampler("FateZero Edit with STEM", "stem_fatezero_object", "FateZero Edit", "FateZero Edit", "Save edit"),
    Sampler(
        "FateZero Edit with STEM, its source pass, other weights on the edit",
        "stem_fatezero_object",
        "FateZero Edit",
        "STEM Inversion",
        "Save edit",
        within=SECOND_HALF,
        runs=False,
        other_weights="FateZero Edit",
    ),
)


@dataclass(frozen=True)
class Fault:
    """What is to happen (see fault_nodes.places), where and at which call; 0 for never."""

    kind: str
    place: str = "attn1_output_patch"
    call: int = 1


NONE = Fault("off")


def small(workflow: str, clip: str, changes: Mapping[str, dict] | None = None) -> Prompt:
    """A shipped edit in API form and what measures it, with the tiny checkpoint and few small frames."""
    prompt = load(FOLDER / "api" / f"{workflow}.json")
    files = {
        "Video Load": {"file": clip},
        "Load Checkpoint": {"ckpt_name": locations.from_environment().checkpoint.name},
    }
    titles = {entry["_meta"]["title"] for entry in prompt.values()}
    for settings in (files, SETTINGS, changes or {}):
        for title in titles & set(settings):
            prompt[node_titled(prompt, title)]["inputs"].update(settings[title])
    return prompt


def only(prompt: Prompt, titles: Iterable[str]) -> Prompt:
    """The part of a workflow that some of its nodes need."""
    wanted, left = set(), [node_titled(prompt, title) for title in titles]
    while left:
        number = left.pop()
        if number not in wanted:
            wanted.add(number)
            left += [value[0] for value in prompt[number]["inputs"].values() if isinstance(value, list)]
    return {number: copy.deepcopy(entry) for number, entry in prompt.items() if number in wanted}


def in_the_way(prompt: Prompt, title: str, name: str, new: str, of_class: str, **inputs: object) -> Prompt:
    """A copy with a node `new` of a class between input `name` of the node titled `title` and what it came from."""
    prompt = copy.deepcopy(prompt)
    entry = prompt[node_titled(prompt, title)]["inputs"]
    prompt[new] = node(of_class, new, **{name: entry[name], **inputs})
    entry[name] = [new, 0]
    return prompt


def prompt_with(sampler: Sampler, clip: str, of_class: str, **inputs: object) -> Prompt:
    """The sampler's workflow, as far as its pictures need it, with a node of a class in its MODEL's way."""
    prompt = small(sampler.workflow, clip, sampler.changes)
    if sampler.model_of:
        prompt[node_titled(prompt, sampler.into)]["inputs"]["model"] = [node_titled(prompt, sampler.model_of), 0]
    if sampler.other_weights:
        prompt = in_the_way(prompt, sampler.other_weights, "model", "weights", "STEMTestOtherWeights")
    return only(in_the_way(prompt, sampler.into, "model", FAULT, of_class, **inputs), [sampler.save])


def prompt_of(sampler: Sampler, fault: Fault, clip: str) -> Prompt:
    """The sampler's workflow, as far as its pictures need it, with a fault."""
    return prompt_with(sampler, clip, "STEMTestFault", kind=fault.kind, place=fault.place, call=fault.call)


def saving(prompt: Prompt, prefix: str) -> Prompt:
    """The part of a workflow that inverts, and Save Inversion after it."""
    sampler = node_of(prompt, "STEMInversionSampler")
    save = node("STEMSaveInversion", "Save Inversion", inversion=[sampler, 0], filename_prefix=prefix)
    return only(prompt | {"saved": save}, ["Save Inversion"])


def loading(prompt: Prompt, file: str) -> Prompt:
    """The same workflow with Load Inversion in place of its sampler."""
    prompt = copy.deepcopy(prompt)
    sampler = node_of(prompt, "STEMInversionSampler")
    checkpoint = node_titled(prompt, "Load Checkpoint")
    prompt[sampler] = node("STEMLoadInversion", "Load Inversion", file=file, model=[checkpoint, 0])
    return prompt


def copying(file: str, prefix: str) -> Prompt:
    """Load Inversion and Save Inversion alone."""
    checkpoint = locations.from_environment().checkpoint.name

    return {
        "1": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name=checkpoint),
        "2": node("STEMLoadInversion", "Load Inversion", file=file, model=["1", 0]),
        "3": node("STEMSaveInversion", "Save Inversion", inversion=["2", 0], filename_prefix=prefix),
    }
