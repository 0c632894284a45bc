"""`make workflows`: writes workflows/*.json and workflows/api/*.json from their one description, for a host's nodes."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ... import locations
from ...host.client import HostError
from ...host.process import HostProcess
from .api_form import WorkflowError, api_form
from .fatezero_graphs import ddim_fatezero_edit, stem_fatezero_object, stem_fatezero_style
from .schema import read_schemas
from .tokenflow_graphs import ddim_tokenflow_edit, reconstruct_first, stem_tokenflow_edit
from .ui_form import Registered, ui_form

FOLDER = locations.ROOT / "workflows"
SHIPPED = (
    reconstruct_first,
    stem_tokenflow_edit,
    ddim_tokenflow_edit,
    stem_fatezero_style,
    stem_fatezero_object,
    ddim_fatezero_edit,
)


def registrations(pyproject: str) -> tuple[Registered, Registered]:
    """The host's and the pack's name and version in the node registry. pyproject: the text of pyproject.toml."""

    def field(name: str) -> str:
        return re.search(rf'^{name} = "(?:>=)?(.+)"$', pyproject, re.MULTILINE)[1]

    return Registered("comfy-core", field("requires-comfyui")), Registered(field("name"), field("version"))


def generate(object_info: Mapping[str, Mapping]) -> dict[Path, str]:
    """The content of every file by its path below FOLDER. object_info: what the host answers under that name.

    WorkflowError where a description does not fit the host's nodes.
    """
    schemas = read_schemas(object_info)
    host, pack = registrations((locations.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    files = {}
    for describe in SHIPPED:
        graph = describe()
        file = Path(f"{graph.name}.json")
        files[file] = as_text(ui_form(graph, schemas, host, pack))
        files["api" / file] = as_text(api_form(graph, schemas))
    return files


def as_text(workflow: Mapping) -> str:
    """A workflow as the text of its file."""
    return json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Asks a host for its nodes and writes the files; returns the exit status."""
    argparse.ArgumentParser(prog="make workflows", description=__doc__).parse_args(arguments)
    where = locations.from_environment()
    try:
        with tempfile.TemporaryDirectory(prefix="stem-workflows-", ignore_cleanup_errors=True) as base:
            # nothing is computed, so an accelerator is of no use
            with HostProcess(
                Path(base), where.host, where.host_python, {locations.PACK: locations.ROOT}, ["--cpu"]
            ) as host:
                files = generate(host.client.object_info())
    except (HostError, WorkflowError) as error:
        print(f"no workflow was written: {error}")
        return 1
    for file, text in files.items():
        (FOLDER / file).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / file).write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {(FOLDER / file).relative_to(locations.ROOT).as_posix()}")
    return 0
