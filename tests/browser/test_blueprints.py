"""The subgraph blueprints: offered by the host, opened by the page, and they edit."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo.example import CAR, SCENE, write_clip
from comfyui_stem.tools.shipped.blueprints import BLUEPRINTS, FOLDER, LOAD

pytestmark = [pytest.mark.host, pytest.mark.browser]

# Builds a graph around the one node that is open: title -> class, its fields, and what it is linked to.
AROUND = """async ({outer, links}) => {
    const graph = window.app.graph;
    const nodes = {blueprint: graph.nodes[0]};
    for (const [name, [type, fields]] of Object.entries(outer)) {
        const node = window.LiteGraph.createNode(type);
        graph.add(node);
        for (const [field, value] of Object.entries(fields))
            node.widgets.find(widget => widget.name === field).value = value;
        nodes[name] = node;
    }
    for (const [source, output, target, input] of links) {
        const slot = nodes[target].inputs.findIndex(one => (one.label ?? one.name) === input);
        const from = nodes[source].outputs.findIndex(one => one.name === output);
        if (slot < 0 || from < 0) throw new Error(`${source}.${output} -> ${target}.${input}`);
        nodes[source].connect(from, nodes[target], slot);
    }
    for (const [field, value] of Object.entries({num_bases: 32, steps: 6, cfg: 4, batch_size: 2}))
        nodes.blueprint.widgets.find(widget => widget.name.endsWith(field)).value = value;
    return JSON.stringify((await window.app.graphToPrompt()).output);
}"""


@pytest.fixture(params=BLUEPRINTS, ids=lambda blueprint: blueprint.name)
def blueprint(request):
    return request.param


@pytest.fixture
def saved(blueprint):
    return json.loads((FOLDER / f"{blueprint.name}.json").read_text(encoding="utf-8"))


def test_the_host_offers_it(host, blueprint, saved):
    offered = host.get_json("/global_subgraphs")
    (entry,) = [key for key, one in offered.items() if one["name"] == blueprint.name]
    assert json.loads(host.get_json(f"/global_subgraphs/{entry}")["data"]) == saved


def test_the_page_opens_it_as_one_node_with_its_fields(opened, blueprint, saved):
    opened.evaluate(LOAD, saved)
    node = opened.evaluate(
        """() => { const [node] = window.app.graph.nodes; return {
            count: window.app.graph.nodes.length, title: node.title, errors: Boolean(node.has_errors),
            inputs: node.inputs.map(one => one.label ?? one.name), fields: node.widgets.map(one => one.name),
            inside: node.subgraph.nodes.map(one => one.type in window.LiteGraph.registered_node_types)}; }"""
    )
    assert node["count"] == 1 and node["title"] == blueprint.name and not node["errors"]
    assert set(blueprint.inputs.values()) <= set(node["inputs"])
    shown = [name.split(": ")[-1] for name in node["fields"]]  # the page puts the number of the node before it
    assert shown == [field for _, field in blueprint.fields]
    assert len(node["inside"]) == len(blueprint.nodes) and all(node["inside"])


def test_a_graph_with_it_edits_a_video(opened, host, saved, tmp_path):
    clip = tmp_path / "blueprint.mp4"
    write_clip(clip)
    opened.evaluate(LOAD, saved)
    outer = {
        "load": ("STEMVideoLoad", {"file": host.upload(clip), "frame_cap": 4, "width": 128, "height": 128}),
        "checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": locations.TRAINED.name}),
        "source": ("CLIPTextEncode", {"text": SCENE.caption}),
        "target": ("CLIPTextEncode", {"text": CAR.caption}),
        "negative": ("CLIPTextEncode", {"text": ""}),
        "save": ("SaveImage", {"filename_prefix": "blueprint"}),
    }
    links = [
        ("load", "images", "blueprint", "video"),
        ("checkpoint", "MODEL", "blueprint", "model"),
        ("checkpoint", "VAE", "blueprint", "vae"),
        *(("checkpoint", "CLIP", prompt, "clip") for prompt in ("source", "target", "negative")),
        *((prompt, "CONDITIONING", "blueprint", f"{prompt}_prompt") for prompt in ("source", "target", "negative")),
        ("blueprint", "IMAGE", "save", "images"),
    ]
    prompt = json.loads(opened.evaluate(AROUND, {"outer": outer, "links": links}))
    fields = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert fields["STEMBases"]["num_bases"] == 32 and fields["STEMInversionSampler"]["steps"] == 6
    assert fields["STEMTokenFlowEdit"]["cfg"] == 4 and fields["STEMTokenFlowEdit"]["batch_size"] == 2
    with ThreadPoolExecutor(1) as thread:  # this one belongs to the browser's loop
        result = thread.submit(host.run, prompt, timeout=300).result()
    assert sum(len(output.get("images", ())) for output in result.outputs.values()) == 4
