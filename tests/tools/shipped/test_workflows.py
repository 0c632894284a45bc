"""A description becomes the right JSON, or an error that says what does not fit."""

from __future__ import annotations

import pytest
from comfyui_stem.tools.shipped.workflows import registrations
from comfyui_stem.tools.shipped.workflows.api_form import WorkflowError, api_form
from comfyui_stem.tools.shipped.workflows.canvas_layout import NODE_TITLE, arrange, size_of
from comfyui_stem.tools.shipped.workflows.graph import Graph, Group
from comfyui_stem.tools.shipped.workflows.node_schemas import read_schemas
from comfyui_stem.tools.shipped.workflows.ui_form import Registered, ui_form
from hypothesis import given
from hypothesis import strategies as st

HOST, PACK = Registered("host", "1"), Registered("pack", "2")


def info(name, required=None, optional=None, outputs=(), module="nodes"):
    """One entry of a host's object_info. outputs: name and type."""
    inputs = {"required": required or {}, "optional": optional or {}}
    return {
        "input": inputs,
        "input_order": {section: list(fields) for section, fields in inputs.items()},
        "output": [kind for _, kind in outputs],
        "output_name": [name for name, _ in outputs],
        "name": name,
        "display_name": f"The {name}",
        "python_module": module,
    }


OBJECT_INFO = {
    "Load": info(
        "Load",
        {"file": ["COMBO", {"options": [], "video_upload": True}], "seed": ["INT", {"default": 3}]},
        {"model": ["MODEL", {}]},
        [("images", "IMAGE"), ("rate", "FLOAT")],
        "custom_nodes.pack",
    ),
    "Save": info(
        "Save",
        {"rate": ["FLOAT", {"default": 30.0, "min": 1.0}], "images": ["IMAGE"], "kind": [["png", "jpg"], {}]},
        {"amount": ["FLOAT", {"default": 0.5}], "seed": ["INT", {"control_after_generate": False}]},
    ),
}
SCHEMAS = read_schemas(OBJECT_INFO)


def load_and_save():
    graph = Graph("example", "1 example")
    load = graph.add("Load", "Load a clip", file="a.mp4")
    save = graph.add("Save", "The Save", images=load["images"], rate=load["rate"], amount=2.0)
    graph.columns = [[Group("All", [load, save, graph.note("Note", "text", (300, 100))])]]
    return graph


def test_the_api_form_has_defaults_given_values_and_links_and_no_notes():
    form = api_form(load_and_save(), SCHEMAS)
    assert form == {
        "1": {"inputs": {"file": "a.mp4", "seed": 3}, "class_type": "Load", "_meta": {"title": "Load a clip"}},
        "2": {
            "inputs": {"images": ["1", 0], "rate": ["1", 1], "kind": "png", "amount": 2, "seed": 0},
            "class_type": "Save",
            "_meta": {"title": "The Save"},
        },
    }
    assert list(form["2"]["inputs"]) == ["rate", "kind", "amount", "seed", "images"]
    assert isinstance(form["2"]["inputs"]["amount"], int), "JavaScript would write 2, not 2.0"


def test_the_ui_form_lists_sockets_before_widgets_and_numbers_links_by_their_targets():
    form = ui_form(load_and_save(), SCHEMAS, HOST, PACK)
    load, save, note = form["nodes"]
    assert [field["name"] for field in load["inputs"]] == ["model", "file", "seed", "upload"]
    assert [field["name"] for field in save["inputs"]] == ["images", "rate", "kind", "amount", "seed"]
    assert form["links"] == [[1, 1, 0, 2, 0, "IMAGE"], [2, 1, 1, 2, 1, "FLOAT"]]
    assert [field["link"] for field in save["inputs"]] == [1, 2, None, None, None]
    assert [output["links"] for output in load["outputs"]] == [[1], [2]]
    assert (form["last_node_id"], form["last_link_id"], form["version"]) == (3, 2, 0.4)
    assert (note["inputs"], note["widgets_values"]) == ([], ["text"])


def test_the_pages_own_widgets_have_values_in_the_ui_form():
    load, save, _ = ui_form(load_and_save(), SCHEMAS, HOST, PACK)["nodes"]
    assert load["widgets_values"] == ["a.mp4", 3, "fixed", "image"]
    assert save["widgets_values"] == [30, "png", 2, 0], "a linked widget keeps its default"


def test_only_a_title_of_its_own_is_written():
    load, save, _ = ui_form(load_and_save(), SCHEMAS, HOST, PACK)["nodes"]
    assert load["title"] == "Load a clip"
    assert "title" not in save


def test_custom_nodes_are_registered_under_the_pack_and_others_under_the_host():
    nodes = ui_form(load_and_save(), SCHEMAS, HOST, PACK)["nodes"]
    assert [node["properties"]["cnr_id"] for node in nodes] == ["pack", "host", "host"]
    assert [node["properties"]["ver"] for node in nodes] == ["2", "1", "1"]


def test_registrations_are_those_of_the_project_file():
    text = '[project]\nname = "a-pack"\nversion = "1.2.3"\n[tool.comfy]\nrequires-comfyui = ">=0.3.75"\n'
    assert registrations(text) == (Registered("comfy-core", "0.3.75"), Registered("a-pack", "1.2.3"))


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("None", {}, "no node class None"),
        ("Save", {}, "nothing is linked to the input images"),
        ("Save", {"images": 3}, "images cannot be 3"),
        ("Load", {"size": 3}, "size cannot be 3; the inputs are model, file, seed"),
    ],
)
def test_a_description_that_does_not_fit_the_host_is_an_error(kind, inputs, message):
    graph = Graph("wrong", "1 wrong")
    graph.add(kind, "Title", **inputs)
    with pytest.raises(WorkflowError, match=message):
        api_form(graph, SCHEMAS)


@pytest.mark.parametrize("output", [None, "sound"])
def test_an_output_that_is_not_one_of_the_nodes_is_an_error(output):
    graph = Graph("wrong", "1 wrong")
    load = graph.add("Load", "Title", file="a.mp4")
    graph.add("Save", "Save", images=load[output] if output else load)
    with pytest.raises(WorkflowError, match="not one of images, rate"):
        api_form(graph, SCHEMAS)


def test_a_node_is_as_low_as_the_page_allows_and_no_lower():
    graph = Graph("heights", "1 heights")
    assert size_of(graph.add("Load", "Low"), SCHEMAS["Load"]) == (270, 150)
    assert size_of(graph.add("Load", "High", (300, 500)), SCHEMAS["Load"]) == (300, 500)


sizes = st.tuples(st.integers(10, 900), st.integers(0, 900))
groups = st.lists(sizes, min_size=1, max_size=6)


@given(st.lists(st.lists(groups, min_size=1, max_size=3), min_size=1, max_size=3))
def test_nodes_lie_in_their_groups_and_nothing_overlaps(columns):
    graph = Graph("any", "1 any")
    graph.columns = [
        [Group("", [graph.add("Save", "", size) for size in group]) for group in groups] for groups in columns
    ]
    layout = arrange(graph, SCHEMAS)
    nodes = {
        number: (box.x, box.y - NODE_TITLE, box.x + box.width, box.y + box.height)
        for number, box in layout.nodes.items()
    }
    frames = [(box.x, box.y, box.x + box.width, box.y + box.height) for _, box in layout.groups]
    assert not any_overlap(list(nodes.values()))
    assert not any_overlap(frames)
    for (group, _), (left, top, right, bottom) in zip(layout.groups, frames, strict=True):
        for node in group.nodes:
            box = nodes[node.id]
            assert left < box[0] and top < box[1] and box[2] < right and box[3] < bottom


def any_overlap(boxes):
    """Whether two of the boxes (left, top, right, bottom) share an area."""
    return any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        for number, a in enumerate(boxes)
        for b in boxes[:number]
    )
