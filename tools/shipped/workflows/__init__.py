"""`make workflows`: writes workflows/*.json and workflows/api/*.json, both forms from one description of each."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ....batch.comfyui.client import HostError
from ....batch.comfyui.process import HostProcess
from ... import locations
from .api_form import WorkflowError, api_form
from .node_schemas import read_schemas
from .shipped_graphs import shipped
from .ui_form import Registered, ui_form

FOLDER = locations.ROOT / "workflows"


def registrations(pyproject: str) -> tuple[Registered, Registered]:
    """ComfyUI's and the pack's name and version in the node registry. pyproject: the text of pyproject.toml."""

    def field(name: str) -> str:
        return re.search(rf'^{name} = "(?:>=)?(.+)"$', pyproject, re.MULTILINE)[1]

    return Registered("comfy-core", field("requires-comfyui")), Registered(field("name"), field("version"))


def templates() -> dict[str, Path]:
    """The files that ComfyUI's page lists as templates, by the name of their workflow."""
    return {graph.name: FOLDER / f"{graph.title}.json" for graph in shipped()}


def generate(object_info: Mapping[str, Mapping]) -> dict[Path, str]:
    """The content of every file by its path below FOLDER. object_info: what ComfyUI answers under that name.

    WorkflowError where a description does not fit ComfyUI's nodes.
    """
    schemas = read_schemas(object_info)
    comfyui, pack = registrations((locations.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    forms = {}
    for graph in shipped():
        forms[Path(f"{graph.title}.json")] = ui_form(graph, schemas, comfyui, pack)
        forms[Path("api", f"{graph.name}.json")] = api_form(graph, schemas)
    return {file: json.dumps(form, indent=2, ensure_ascii=False) + "\n" for file, form in forms.items()}


def main(arguments: list[str]) -> int:
    """Asks a ComfyUI for its nodes and writes the files; returns the exit status."""
    argparse.ArgumentParser(prog="make workflows", description=__doc__).parse_args(arguments)
    where = locations.from_environment()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="stem-workflows-", ignore_cleanup_errors=True) as base,
            # nothing is computed, so an accelerator is of no use
            HostProcess(Path(base), where.host, where.host_python, {locations.PACK: locations.ROOT}, ["--cpu"]) as host,
        ):
            files = generate(host.client.object_info())
    except (HostError, WorkflowError) as error:
        print(f"no workflow was written: {error}")
        return 1
    for file, text in files.items():
        (FOLDER / file).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / file).write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {(FOLDER / file).relative_to(locations.ROOT).as_posix()}")
    return 0
