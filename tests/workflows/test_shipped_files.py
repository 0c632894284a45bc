"""The shipped files fit the nodes of a real host, and both forms say the same."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from comfyui_stem.tests.workflows.newer_nodes import newer_nodes
from comfyui_stem.tools.locations import PACK, ROOT
from comfyui_stem.tools.shipped.workflows import FOLDER, generate, templates

pytestmark = pytest.mark.host

NAMES = (
    "reconstruct_first",
    "edit_video_by_text",
    "edit_part_of_video",
    "stem_tokenflow_edit",
    "stem_fatezero_style",
    "stem_fatezero_object",
    "ddim_tokenflow_edit",
    "ddim_fatezero_edit",
)
TEMPLATES = templates()
NOTE = "MarkdownNote"
# Inputs whose options are the host's own files.
FILES = {"file", "ckpt_name"}
TITLE_HEIGHT = 30


@pytest.fixture(scope="module")
def object_info(host):
    return host.object_info()


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def api(name):
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def ui(name):
    return json.loads(TEMPLATES[name].read_text(encoding="utf-8"))


def specifications(info):
    """(type, options) of every input by name, required ones first."""
    for section in ("required", "optional"):
        for field, (kind, *options) in info["input"].get(section, {}).items():
            options = options[0] if options else {}
            yield field, (("COMBO", {**options, "options": kind}) if isinstance(kind, list) else (kind, options))


def test_make_workflows_would_change_nothing(object_info):
    shipped = {file.relative_to(FOLDER): file.read_bytes() for file in FOLDER.rglob("*.json")}
    forms = [json.loads(text) for file, text in shipped.items() if file.parent.name == "api"]
    if newer := set().union(*(newer_nodes(object_info, form) for form in forms)):
        pytest.skip(f"this host has other widgets on {', '.join(sorted(newer))}")
    assert shipped == {file: text.encode() for file, text in generate(object_info).items()}
    assert tuple(TEMPLATES) == NAMES
    assert set(shipped) == {Path("api", f"{name}.json") for name in NAMES} | {Path(f.name) for f in TEMPLATES.values()}


def test_templates_are_numbered_in_the_order_in_which_a_person_would_try_them_and_have_a_thumbnail():
    assert [file.stem.split()[0] for file in TEMPLATES.values()] == [str(n) for n in range(1, len(NAMES) + 1)]
    # no character that a system's file names or an address cannot hold
    assert all(re.fullmatch(r"[\w ,-]+", file.stem) for file in TEMPLATES.values())
    assert all(file.with_suffix(".jpg").is_file() for file in TEMPLATES.values())


@pytest.mark.parametrize(("widget", "module", "newer"), [("b", "nodes", set()), ("c", "nodes", {"Core"})])
def test_a_core_node_with_another_widget_is_told_from_those_that_the_files_were_made_with(widget, module, newer):
    sections = {"required": {"a": ("IMAGE", {}), widget: ("INT", {})}}
    info = {"input": sections, "input_order": {"required": ["a", widget]}, "output": [], "output_name": []}
    api = {"1": {"class_type": "Core", "inputs": {"a": ["2", 0], "b": 3}}}
    assert newer_nodes({"Core": info | {"display_name": "Core", "python_module": module}}, api) == newer


def test_the_host_offers_them_as_templates(host):
    assert sorted(host.get_json("/workflow_templates")[PACK]) == [file.stem for file in TEMPLATES.values()]


def test_every_node_has_all_required_inputs_and_no_unknown_ones(api, object_info):
    for node in api.values():
        inputs = object_info[node["class_type"]]["input"]
        assert set(inputs["required"]) <= set(node["inputs"]) <= {*inputs["required"], *inputs.get("optional", {})}


def test_every_value_is_one_that_its_schema_allows(api, object_info):
    newer = newer_nodes(object_info, api)
    for node in api.values():
        fields = dict(specifications(object_info[node["class_type"]]))
        for field, value in node["inputs"].items():
            if node["class_type"] in newer:
                continue
            kind, options = fields[field]
            if isinstance(value, list):
                continue
            if kind == "COMBO":
                assert field in FILES or value in options["options"], (node, field)
            elif kind in ("INT", "FLOAT"):
                assert isinstance(value, int if kind == "INT" else (int, float)), (node, field)
                assert options.get("min", value) <= value <= options.get("max", value), (node, field)
            else:
                assert isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind]), (node, field)


def test_every_link_joins_an_output_to_an_input_of_its_type(api, object_info):
    for node in api.values():
        fields = dict(specifications(object_info[node["class_type"]]))
        for field, value in node["inputs"].items():
            if isinstance(value, list):
                source, slot = value
                assert fields[field][0] in ("*", object_info[api[source]["class_type"]]["output"][slot])


def test_the_lists_of_links_agree_with_the_slots_of_both_ends(ui):
    nodes = {node["id"]: node for node in ui["nodes"]}
    arriving = {
        (node["id"], slot): field["link"]
        for node in ui["nodes"]
        for slot, field in enumerate(node["inputs"])
        if field["link"] is not None
    }
    leaving = {
        (node["id"], slot, link)
        for node in ui["nodes"]
        for slot, output in enumerate(node["outputs"])
        for link in output["links"] or []
    }
    assert arriving == {(target, slot): link for link, _, _, target, slot, _ in ui["links"]}
    assert leaving == {(source, slot, link) for link, source, slot, _, _, _ in ui["links"]}
    for _, source, output, target, slot, kind in ui["links"]:
        assert nodes[source]["outputs"][output]["type"] == kind
        assert nodes[target]["inputs"][slot]["type"] in ("*", kind)
        assert nodes[source]["order"] < nodes[target]["order"]


def test_ids_are_unique_and_counted(ui):
    ids, links = [node["id"] for node in ui["nodes"]], [link[0] for link in ui["links"]]
    assert sorted(ids) == list(range(1, ui["last_node_id"] + 1))
    assert sorted(links) == list(range(1, ui["last_link_id"] + 1))
    assert ui["version"] == 0.4


def test_both_forms_have_the_same_nodes_titles_and_links(ui, api, object_info):
    sources = {link: [str(source), slot] for link, source, slot, _, _, _ in ui["links"]}
    for node in ui["nodes"]:
        if node["type"] == NOTE:
            continue
        queued = api.pop(str(node["id"]))
        assert queued["class_type"] == node["type"]
        assert queued["_meta"]["title"] == node.get("title", object_info[node["type"]]["display_name"])
        linked = {field["name"]: sources[field["link"]] for field in node["inputs"] if field["link"]}
        assert linked == {field: value for field, value in queued["inputs"].items() if isinstance(value, list)}
    assert not api


def test_both_forms_have_the_same_values(ui, api, object_info):
    for node in ui["nodes"]:
        if node["type"] == NOTE:
            continue
        widgets = [field["name"] for field in node["inputs"] if "widget" in field]
        values = list(node["widgets_values"])
        _, seed = dict(specifications(object_info[node["type"]])).get("seed", ("", {}))
        if seed.get("control_after_generate"):
            # the page's own widget behind a seed; a shipped workflow gives the same result twice
            assert values.pop(widgets.index("seed") + 1) == "fixed"
        shown = dict(zip(widgets, values, strict=True))
        queued = {
            field: value for field, value in api[str(node["id"])]["inputs"].items() if not isinstance(value, list)
        }
        assert queued == {field: shown[field] for field in queued}


def test_every_node_says_which_pack_and_version_has_it(ui, object_info):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)[1]
    for node in ui["nodes"]:
        ours = object_info.get(node["type"], {}).get("python_module", "").startswith("custom_nodes.")
        found = node["properties"]["cnr_id"], node["properties"]["ver"]
        assert found == (("stem-inversion", version) if ours else ("comfy-core", "0.3.75"))


def test_no_nodes_overlap_and_each_lies_in_one_group(ui):
    boxes = [
        (x, y - TITLE_HEIGHT, x + width, y + height)
        for (x, y), (width, height) in ((node["pos"], node["size"]) for node in ui["nodes"])
    ]
    for number, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:number])
        around = [
            group["title"]
            for group in ui["groups"]
            for x, y, width, height in [group["bounding"]]
            if x < a[0] and y < a[1] and a[2] < x + width and a[3] < y + height
        ]
        assert len(around) == 1


def test_no_wire_runs_behind_a_group_that_it_has_nothing_to_do_with(ui):
    """Lines between the points that a wire runs through; without any, the curve that the page draws."""
    nodes, points = {node["id"]: node for node in ui["nodes"]}, {one["id"]: one for one in ui["extra"]["reroutes"]}
    last = {one["id"]: one["parentId"] for one in ui["extra"]["linkExtensions"]}
    for link, source, output, target, field, _ in ui["links"]:
        (left, top), width = nodes[source]["pos"], nodes[source]["size"][0]
        row = 0 if "widget" in nodes[target]["inputs"][field] else field
        start = left + width, top + 10 + 20 * output
        end = nodes[target]["pos"][0], nodes[target]["pos"][1] + 10 + 20 * row
        middle, at = [], last.get(link)
        while at is not None:
            assert link in points[at]["linkIds"]
            middle.insert(0, points[at]["pos"])
            at = points[at].get("parentId")
        drawn = [*straight([start, *middle, end])] if middle else [*curved(start, end)]
        for group in ui["groups"]:
            x, y, wide, high = group["bounding"]
            inside = [a for a in drawn if x < a[0] < x + wide and y < a[1] < y + high]
            ends = (nodes[number]["pos"] for number in (source, target))
            own = any(x < a < x + wide and y < b < y + high for a, b in ends)
            assert own or not inside, (nodes[source]["type"], nodes[target]["type"], group["title"])


def straight(corners):
    for (x, y), (right, down) in zip(corners, corners[1:], strict=False):
        yield from ((x + (right - x) * step / 40, y + (down - y) * step / 40) for step in range(41))


def curved(start, end):
    reach = math.dist(start, end) / 4
    (x, y), (right, down) = start, end
    for step in range(61):
        t = step / 60
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
        yield a * x + b * (x + reach) + c * (right - reach) + d * right, (a + b) * y + (c + d) * down


def test_at_most_two_files_are_left_in_the_output_folder(api):
    kinds = Counter(node["class_type"] for node in api.values())
    assert not kinds["SaveImage"] and 1 <= kinds["SaveVideo"] <= 2


def test_a_workflow_opens_at_a_size_that_can_be_read(ui):
    assert ui["extra"]["ds"]["scale"] >= 0.8
    assert max(x + width for x, _, width, _ in (group["bounding"] for group in ui["groups"])) <= 1700


def test_the_page_can_offer_the_checkpoint(ui):
    (models,) = [node["properties"]["models"] for node in ui["nodes"] if node["type"] == "CheckpointLoaderSimple"]
    (loader,) = [node for node in ui["nodes"] if node["type"] == "CheckpointLoaderSimple"]
    assert [model["name"] for model in models] == loader["widgets_values"]
    assert models[0]["url"].startswith("https://") and models[0]["directory"] == "checkpoints"


def test_the_comparison_differs_only_in_stem_bases():
    stem, ddim = (
        json.loads((FOLDER / "api" / f"{kind}_tokenflow_edit.json").read_text(encoding="utf-8"))
        for kind in ("stem", "ddim")
    )

    def settings(workflow):
        """Class and settings of each node but where its links come from, and the names of its files."""
        return sorted(
            json.dumps([node["class_type"], {k: v for k, v in node["inputs"].items() if not isinstance(v, list)}])
            for node in workflow.values()
            if "filename_prefix" not in node["inputs"]
        )

    bases = [node for node in stem.values() if node["class_type"] == "STEMBases"]
    assert len(bases) == 1
    assert settings(stem) == sorted([*settings(ddim), *settings({"1": bases[0]})])
