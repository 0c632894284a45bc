"""`make blueprints`: writes subgraphs/*.json, whole edits as one node, by letting ComfyUI's own page make them.

A blueprint is a shipped workflow of which some nodes are put into a subgraph, and all others are taken away.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import locations
from ..host.browser import browser_path, opened_page
from ..host.process import HostProcess
from .workflows import FOLDER as WORKFLOWS

FOLDER = locations.ROOT / "subgraphs"


@dataclass(frozen=True)
class Blueprint:
    """A part of a workflow as one node.

    Attributes:
        name: of the node.
        workflow: the shipped one that it is a part of.
        nodes: titles of the nodes inside.
        inputs: what the node's inputs are called, by what the page would call them.
        fields: those of the nodes inside that the node shows itself: title and field.
    """

    name: str
    workflow: str
    nodes: tuple[str, ...]
    inputs: Mapping[str, str]
    fields: tuple[tuple[str, str], ...]


PROMPTS = {"pixels": "video", "positive": "source_prompt", "positive_1": "target_prompt", "negative": "negative_prompt"}
BLUEPRINTS = (
    Blueprint(
        "STEM-TokenFlow video edit",
        "stem_tokenflow_edit",
        ("VAE Encode", "STEM Bases", "STEM Inversion", "TokenFlow Edit", "Decode edit"),
        PROMPTS,
        (
            ("STEM Bases", "num_bases"),
            ("STEM Inversion", "steps"),
            ("TokenFlow Edit", "cfg"),
            ("TokenFlow Edit", "batch_size"),
            ("TokenFlow Edit", "attention_injection"),
            ("TokenFlow Edit", "feature_injection"),
        ),
    ),
)
LOAD = "async workflow => { await window.app.loadGraphData(workflow); }"
CONVERT = """({titles, name, inputs, fields}) => {
    const graph = window.app.graph;
    const inside = graph.nodes.filter(node => titles.includes(node.title));
    const ids = Object.fromEntries(inside.map(node => [node.title, String(node.id)]));
    // what only leads elsewhere would become an output
    for (const node of graph.nodes.filter(node => node.title.startsWith("Decode VAE"))) graph.remove(node);
    const {subgraph, node} = graph.convertToSubgraph(new Set(inside));
    subgraph.name = name;
    node.title = name;
    for (const input of subgraph.inputs)
        if (inputs[input.name]) subgraph.renameInput(input, inputs[input.name]);
    node.properties.proxyWidgets = fields.map(([title, field]) => [ids[title], field]);
    for (const other of [...graph.nodes]) if (other !== node) graph.remove(other);
    for (const group of [...graph.groups]) graph.remove(group);
    return JSON.stringify(graph.serialize());
}"""


def made_by(page: Any, blueprint: Blueprint) -> dict:
    """The blueprint, as the page saves it."""
    page.evaluate(LOAD, json.loads((WORKFLOWS / f"{blueprint.workflow}.json").read_text(encoding="utf-8")))
    options = {
        "titles": blueprint.nodes,
        "name": blueprint.name,
        "inputs": dict(blueprint.inputs),
        "fields": [list(field) for field in blueprint.fields],
    }
    saved = json.loads(page.evaluate(CONVERT, options))
    (subgraph,) = saved["definitions"]["subgraphs"]
    # the page draws a new one every time
    fixed = str(uuid.uuid5(uuid.NAMESPACE_OID, blueprint.name))
    saved = json.loads(json.dumps(saved).replace(subgraph["id"], fixed))
    saved["id"], saved["extra"] = fixed, {}
    return saved


def main(arguments: list[str]) -> int:
    """Writes the files; returns the exit status."""
    argparse.ArgumentParser(prog="make blueprints", description=__doc__.splitlines()[0]).parse_args(arguments)
    executable = browser_path()
    if executable is None:
        print("no blueprint was written: there is no Chromium on PATH; name one with STEM_CHROMIUM.")
        return 1
    where = locations.from_environment()
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="stem-blueprints-", ignore_cleanup_errors=True) as base,
        HostProcess(Path(base), where.host, where.host_python, {locations.PACK: locations.ROOT}, ["--cpu"]) as host,
        opened_page(host.client, executable) as page,
    ):
        for blueprint in BLUEPRINTS:
            file = FOLDER / f"{blueprint.name}.json"
            text = json.dumps(made_by(page, blueprint), indent=2, ensure_ascii=False) + "\n"
            file.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {file.relative_to(locations.ROOT).as_posix()}")
    return 0
