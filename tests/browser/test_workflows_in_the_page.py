"""The host's own page opens the shipped workflows and makes the shipped API form of them."""

from __future__ import annotations

import contextlib
import json

import pytest
from comfyui_stem.tests.workflows.newer_nodes import newer_nodes
from comfyui_stem.tools.host.browser import screenshot
from comfyui_stem.tools.shipped.workflows import FOLDER, templates

pytestmark = [pytest.mark.host, pytest.mark.browser]

FILE_INPUT = "#comfy-file-input"
EMPTY = "() => window.app.graph.clear()"
OPENED = "count => window.app.graph.nodes.length === count"
LOAD = "async workflow => { await window.app.loadGraphData(workflow); }"
# undefined fields drop out on the way through JSON, as they do when the page saves a workflow
SAVED = "() => JSON.stringify(window.app.graph.serialize())"
QUEUED = "async () => JSON.stringify((await window.app.graphToPrompt()).output)"
WRONG_NODES = """() => window.app.graph.nodes
    .filter(node => node.has_errors || !(node.type in window.LiteGraph.registered_node_types))
    .map(node => node.type)"""
# Left, top, right and bottom of every node, its title bar included, and of every group, as the page has drawn them.
DRAWN = """() => {
    const corners = ([x, y], [width, height], above) => [x, y - above, x + width, y + height];
    const graph = window.app.graph;
    return {
        scale: window.app.canvas.ds.scale,
        nodes: graph.nodes.map(node => corners(node.pos, node.size, window.LiteGraph.NODE_TITLE_HEIGHT)),
        groups: graph.groups.map(group => corners(group.pos, group.size, 0)),
    };
}"""
# The same of the nodes that Nodes 2.0 has built as elements, in units of the canvas, and how well notes stand out from
# the colour behind them, as WCAG counts contrast.
BUILT = """() => {
    const canvas = window.app.canvas, {scale, offset} = canvas.ds, origin = canvas.canvas.getBoundingClientRect();
    const placed = ({left, top, right, bottom}) => [left, top, right, bottom].map(
        (value, place) => (value - (place % 2 ? origin.top : origin.left)) / scale - offset[place % 2]);
    const colour = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
    const behind = element => {
        for (; element; element = element.parentElement) {
            const found = colour(getComputedStyle(element).backgroundColor);
            if (found.length === 3 || found[3] === 1) return found;
        }
    };
    const light = channels => channels.slice(0, 3).map(value => value / 255)
        .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
    const contrast = element => {
        const [text, ground] = [light(colour(getComputedStyle(element).color)), light(behind(element))];
        return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    };
    return {
        scale,
        nodes: [...document.querySelectorAll(".lg-node[data-node-id]")]
            .map(node => placed(node.getBoundingClientRect())),
        groups: window.app.graph.groups.map(({pos: [x, y], size: [width, height]}) => [x, y, x + width, y + height]),
        contrasts: [...document.querySelectorAll(".comfy-markdown-content :is(h2, p, li, strong)")].map(contrast),
    };
}"""
BUILT_ALL = "count => document.querySelectorAll('.lg-node[data-node-id]').length === count"
NODES_2 = "async on => { await window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on); }"
# What the page adds by itself to a node that shows its clip or a text; the host ignores it.
PREVIEWS = ("video-preview", "preview")


TEMPLATES = templates()


@pytest.fixture(params=TEMPLATES)
def name(request):
    return request.param


@pytest.fixture
def workflow(name):
    return json.loads(TEMPLATES[name].read_text(encoding="utf-8"))


@pytest.fixture
def api(name):
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def newer(host, api):
    """Core nodes that this host's page shows with other widgets than the files were made with."""
    return newer_nodes(host.object_info(), api)


@pytest.fixture
def page(opened, workflow):
    """The page with a shipped workflow."""
    opened.evaluate(LOAD, workflow)
    return opened


def test_every_template_opens_through_the_file_input(opened, name, workflow):
    opened.evaluate(EMPTY)
    opened.set_input_files(FILE_INPUT, str(TEMPLATES[name]))
    opened.wait_for_function(OPENED, arg=len(workflow["nodes"]))
    screenshot(opened, f"{name}.png")
    assert opened.evaluate(WRONG_NODES) == []
    assert not opened.get_by_role("dialog").all()


def test_no_node_is_missing_or_marked_red(page, workflow):
    assert page.evaluate(WRONG_NODES) == []
    assert len(json.loads(page.evaluate(SAVED))["nodes"]) == len(workflow["nodes"])
    assert not page.get_by_role("dialog").all()


def test_it_opens_readable_and_nothing_overlaps_or_leaves_its_group(page):
    drawn = settled(page, DRAWN)
    assert drawn["scale"] >= 0.8
    assert_nothing_overlaps_or_leaves_its_group(drawn)


def settled(page, what):
    """What the page says once it says the same twice: a node grows when it is drawn."""
    seen = None
    for _ in range(20):
        page.wait_for_timeout(500)
        before, seen = seen, page.evaluate(what)
        if seen == before:
            break
    return seen


def assert_nothing_overlaps_or_leaves_its_group(drawn):
    for number, (left, top, right, bottom) in enumerate(drawn["nodes"]):
        for other in drawn["nodes"][:number]:
            assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]
        assert any(left > x and top > y and right < x2 and bottom < y2 for x, y, x2, y2 in drawn["groups"])


def test_the_page_queues_the_shipped_api_form(page, api, newer):
    queued = json.loads(page.evaluate(QUEUED))
    for node in queued.values():
        for preview in PREVIEWS:
            node["inputs"].pop(preview, None)
    assert queued.keys() == api.keys()
    queued, shipped = (
        {key: node for key, node in form.items() if node["class_type"] not in newer} for form in (queued, api)
    )
    # as text, so that the order of nodes and inputs counts too
    assert json.dumps(queued, indent=1) == json.dumps(shipped, indent=1)


def test_the_page_saves_what_it_has_opened(page, workflow, newer):
    if newer:
        pytest.skip("the page of this host is newer than the files, and saves nodes and groups in a form of its own")
    saved = json.loads(page.evaluate(SAVED))
    for node in (*saved["nodes"], *workflow["nodes"]):
        # the page sorts nodes anew
        del node["order"]
    del saved["extra"], workflow["extra"]
    assert saved == workflow


def test_a_class_that_the_host_lacks_would_be_noticed(opened):
    workflow = json.loads(TEMPLATES["reconstruct_first"].read_text(encoding="utf-8"))
    workflow["nodes"][0]["type"] = "NotThere"
    opened.evaluate(LOAD, workflow)
    assert opened.evaluate(WRONG_NODES) == ["NotThere"]
    # older pages say so in a dialog
    from playwright.sync_api import TimeoutError as NoDialog

    dialog = opened.get_by_role("dialog").first
    with contextlib.suppress(NoDialog):
        dialog.wait_for(timeout=10_000)
        opened.keyboard.press("Escape")
        dialog.wait_for(state="detached")


@pytest.fixture(scope="module")
def opened_in_nodes_2(opened):
    """The page with nodes that are elements of it, for the tests that come last."""
    opened.evaluate(NODES_2, True)
    yield opened
    opened.evaluate(NODES_2, False)


def test_in_nodes_2_it_opens_readable_too_and_notes_stand_out(opened_in_nodes_2, name, workflow):
    page = opened_in_nodes_2
    page.evaluate(LOAD, workflow)
    page.wait_for_function(BUILT_ALL, arg=len(workflow["nodes"]))
    built = settled(page, BUILT)
    screenshot(page, f"{name}_nodes_2.png")
    assert built["scale"] >= 0.8
    assert_nothing_overlaps_or_leaves_its_group(built)
    assert len(built["contrasts"]) >= 4 and min(built["contrasts"]) >= 4.5
