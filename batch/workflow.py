"""A workflow in API form, and what a job sets in it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .comfyui.events import title_of
from .jobs import Job, JobsError

# Where a job's own columns go: the inputs in question, by the title or the class of their node; the first one is taken.
_PLACES = {
    "video": (("title", "Video Load", "file"), ("class", "STEMVideoLoad", "file"), ("class", "LoadVideo", "file")),
    "source": (
        ("title", "Source prompt", "text"),
        ("title", "Source prompt", "value"),
        ("class", "STEMEditVideo", "source_prompt"),
    ),
    "target": (
        ("title", "Target prompt", "text"),
        ("title", "Target prompt", "value"),
        ("class", "STEMFateZeroEdit", "target_prompt"),
        ("class", "STEMEditVideo", "target_prompt"),
    ),
}
# Fields that trade memory for time, and what they become when a clip ran out of memory.
MEMORY_FIELDS = {"frames_per_batch": 1, "batch_size": 1}
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

Workflow = dict[str, dict]


def load_workflow(file: Path) -> Workflow:
    """Reads a workflow in API form. JobsError says what it is instead."""
    try:
        workflow = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobsError(f"The workflow {file} cannot be read: {error}") from None
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        raise JobsError(
            f"{file.name} is a saved graph. In ComfyUI, open it and choose File > Export (API); name that file."
        )
    if not isinstance(workflow, dict) or not workflow:
        raise JobsError(f"{file.name} is not a workflow in API form.")
    for node, entry in workflow.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
            raise JobsError(f"{file.name} is not a workflow in API form: node {node} has no class_type.")
        if not isinstance(entry.get("inputs"), dict):
            raise JobsError(f"{file.name} is not a workflow in API form: node {node} has no inputs.")
    return workflow


def place(workflow: Workflow, column: str) -> tuple[str, str]:
    """The node and the input that a column sets. JobsError says what the workflow has instead."""
    if column in _PLACES:
        for by, name, field in _PLACES[column]:
            for node, entry in workflow.items():
                found = title_of(workflow, node) if by == "title" else entry["class_type"]
                # an input that is wired is set elsewhere
                if found == name and field in entry["inputs"] and not isinstance(entry["inputs"][field], list):
                    return node, field
        wanted = " or ".join(f"'{name}.{field}'" for _, name, field in _PLACES[column])
        raise JobsError(f"The workflow has no place for the {column}: it needs {wanted}, with a value and no wire.")
    name, _, field = column.rpartition(".")
    nodes = [node for node in workflow if title_of(workflow, node) == name]
    if len(nodes) != 1:
        titles = ", ".join(sorted({title_of(workflow, node) for node in workflow}))
        raise JobsError(
            f"The column {column!r} wants one node titled {name!r}; the workflow has {len(nodes)}. Its titles: "
            f"{titles}."
        )
    inputs = workflow[nodes[0]]["inputs"]
    if field not in inputs:
        raise JobsError(f"The column {column!r}: the node {name!r} has no input {field!r}, only {', '.join(inputs)}.")
    if isinstance(inputs[field], list):
        raise JobsError(f"The column {column!r}: that input of {name!r} is wired to another node, so it has no value.")
    return nodes[0], field


def check_places(workflow: Workflow, jobs: Iterable[Job]) -> None:
    """JobsError when a column of the jobs, or their video, has no place in the workflow."""
    for column in {name for job in jobs for name in job.values} | {"video"}:
        place(workflow, column)


def filled(workflow: Workflow, job: Job, video: str) -> Workflow:
    """A copy with the job's settings in it; `video` is what ComfyUI calls the job's video.

    What it saves has the job's name in front, so that a node that saves runs even where all before it is known.
    """
    made = copy.deepcopy(workflow)
    for column, value in {**job.values, "video": video}.items():
        node, field = place(workflow, column)
        made[node]["inputs"][field] = value
    for entry in made.values():
        if isinstance(prefix := entry["inputs"].get("filename_prefix"), str):
            entry["inputs"]["filename_prefix"] = f"{job.id}/{prefix}"
    return made


def with_less_memory(workflow: Workflow) -> Workflow:
    """A copy whose nodes take as few frames at a time as they can."""
    made = copy.deepcopy(workflow)
    for entry in made.values():
        for field, value in MEMORY_FIELDS.items():
            if field in entry["inputs"] and not isinstance(entry["inputs"][field], list):
                entry["inputs"][field] = value
    return made


def checked(workflow: Workflow, jobs: Iterable[Job], object_info: Mapping[str, dict]) -> list[Job]:
    """The jobs with values of the types that ComfyUI's nodes take.

    Raises:
        JobsError: a node is not installed, or a value is none that its field can have; with the row.
    """
    for node, entry in workflow.items():
        if entry["class_type"] not in object_info:
            raise JobsError(
                f"This ComfyUI has no node {entry['class_type']} ({title_of(workflow, node)}). Install its pack first."
            )
    _check_files(workflow, object_info)
    made = []
    for job in jobs:
        values = {}
        for column, value in job.values.items():
            node, field = place(workflow, column)
            try:
                values[column] = _converted(value, _specification(object_info[workflow[node]["class_type"]], field))
            except ValueError as error:
                raise JobsError(f"{job.row}, column {column!r}: {value!r} {error}.") from None
        made.append(Job(job.id, job.video, values, job.row))
    return made


def _check_files(workflow: Workflow, object_info: Mapping[str, dict]) -> None:
    """Raise when the workflow names a checkpoint that is not there, which every clip would fail with."""
    for node, entry in workflow.items():
        for field, value in entry["inputs"].items():
            specification = _specification(object_info[entry["class_type"]], field)
            options = _options(specification)
            if field.endswith("_name") and options is not None and isinstance(value, str) and value not in options:
                known = ", ".join(map(str, options[:8])) or "none"
                raise JobsError(
                    f"{title_of(workflow, node)}.{field} is {value!r}, which this ComfyUI does not have. It has: "
                    f"{known}."
                )


def _specification(node: Mapping[str, Any], field: str) -> list:
    inputs = node.get("input") or {}
    return (inputs.get("required") or {}).get(field) or (inputs.get("optional") or {}).get(field) or [None]


def _options(specification: list) -> list | None:
    """The choices of a field, which older and newer nodes declare in two ways; None where it has none."""
    if isinstance(specification[0], list):
        return specification[0]
    if specification[0] == "COMBO":
        return (specification[1] if len(specification) > 1 else {}).get("options") or []
    return None


def _converted(value: Any, specification: list) -> Any:
    """A cell as a field's value. ValueError ends a sentence that begins with the cell."""
    kind, options = specification[0], _options(specification)
    if options is not None:
        if options and value not in options:
            raise ValueError(f"is none of {', '.join(map(str, options[:12]))}")
        return value
    if kind in ("INT", "FLOAT"):
        try:
            number = float(value)
            if kind == "INT" and number != int(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"is not {'a whole number' if kind == 'INT' else 'a number'}") from None
        bounds = specification[1] if len(specification) > 1 else {}
        if not bounds.get("min", number) <= number <= bounds.get("max", number):
            raise ValueError(f"is not from {bounds.get('min')} to {bounds.get('max')}")
        # through the text, because a seed may have more digits than a float
        return number if kind == "FLOAT" else int(value) if str(value).strip().lstrip("+-").isdigit() else int(number)
    if kind == "BOOLEAN":
        if str(value).strip().lower() not in _TRUTHS:
            raise ValueError("is neither true nor false")
        return _TRUTHS[str(value).strip().lower()]
    if kind == "STRING":
        return str(value)
    raise ValueError(f"would go to an input that takes {kind} from another node")
