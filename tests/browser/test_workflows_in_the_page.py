"""The host's own page opens the shipped workflows and makes the shipped API form of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from comfyui_stem.tools.demo import CLIP
from comfyui_stem.tools.workflows import FOLDER

pytestmark = [pytest.mark.host, pytest.mark.browser]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# fmt: off
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
# fmt: on
READY = "() => Boolean(window.app?.graph && window.LiteGraph?.registered_node_types.STEMVideoLoad)"
LOAD = "async workflow => { await window.app.loadGraphData(workflow); }"
# undefined fields drop out on the way through JSON, as they do when the page saves a workflow
SAVED = "() => JSON.stringify(window.app.graph.serialize())"
QUEUED = "async () => JSON.stringify((await window.app.graphToPrompt()).output)"
WRONG_NODES = """() => window.app.graph.nodes
    .filter(node => node.has_errors || !(node.type in window.LiteGraph.registered_node_types))
    .map(node => node.type)"""
# What the page adds by itself to a node that shows its clip; the host ignores it.
PREVIEW = "video-preview"


def browser_path() -> str:
    """The Chromium to use; skips the test where there is none."""
    chosen = os.environ.get("STEM_CHROMIUM")
    if chosen:
        assert Path(chosen).is_file(), f"STEM_CHROMIUM names {chosen}, but there is no such file."
        return chosen
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"No Chromium: none of {', '.join(BROWSERS)} is on PATH, and STEM_CHROMIUM does not name one.")
    return found


@pytest.fixture(scope="module")
def opened(request):
    """The host's page in a browser; the host has the workflows' clip."""
    executable = browser_path()
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: run `make setup`.")
    # only now, so that nothing is started where there is no browser
    host = request.getfixturevalue("host")
    host.upload(CLIP)
    host.post_json("/settings", {**host.get_json("/settings"), "Comfy.TutorialCompleted": True})
    with (
        playwright.sync_playwright() as driver,
        driver.chromium.launch(executable_path=executable, args=ARGUMENTS) as browser,
    ):
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(host.url)
        page.wait_for_function(READY, timeout=120_000)
        yield page


@pytest.fixture(params=sorted(file.stem for file in FOLDER.glob("*.json")))
def name(request):
    return request.param


@pytest.fixture
def workflow(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def page(opened, workflow):
    """The page with a shipped workflow."""
    opened.evaluate(LOAD, workflow)
    return opened


def test_no_node_is_missing_or_marked_red(page, workflow):
    assert page.evaluate(WRONG_NODES) == []
    assert len(json.loads(page.evaluate(SAVED))["nodes"]) == len(workflow["nodes"])
    assert not page.get_by_role("dialog").all()


def test_the_page_queues_the_shipped_api_form(page, name):
    queued = json.loads(page.evaluate(QUEUED))
    for node in queued.values():
        node["inputs"].pop(PREVIEW, None)
    shipped = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    # as text, so that the order of nodes and inputs counts too
    assert json.dumps(queued, indent=1) == json.dumps(shipped, indent=1)


def test_the_page_saves_what_it_has_opened(page, workflow):
    saved = json.loads(page.evaluate(SAVED))
    for node in (*saved["nodes"], *workflow["nodes"]):
        # the page sorts nodes anew
        del node["order"]
    del saved["extra"], workflow["extra"]
    assert saved == workflow


def test_a_class_that_the_host_lacks_would_be_noticed(opened):
    workflow = json.loads((FOLDER / "reconstruct_first.json").read_text(encoding="utf-8"))
    workflow["nodes"][0]["type"] = "NotThere"
    opened.evaluate(LOAD, workflow)
    assert opened.evaluate(WRONG_NODES) == ["NotThere"]
    opened.get_by_role("dialog").first.wait_for()
    opened.keyboard.press("Escape")
    opened.get_by_role("dialog").first.wait_for(state="detached")
