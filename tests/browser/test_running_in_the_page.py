"""A person opens the first template in the host's page, presses Run, sees progress and the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo.example import SCENE, write_clip
from comfyui_stem.tools.host.browser import screenshot
from comfyui_stem.tools.shipped.workflows import templates

pytestmark = [pytest.mark.host, pytest.mark.browser]

TEMPLATES = templates()
TEMPLATE = TEMPLATES["reconstruct_first"]
# What the demo uses for its own clip.
SETTINGS = {
    "Video Load": {"width": 128, "height": 128, "frame_cap": 4},
    "Load Checkpoint": {"ckpt_name": locations.TRAINED.name},
    "Source prompt": {"text": SCENE.caption},
    "STEM Bases": {"num_bases": 64},
    "STEM Inversion": {"steps": 4},
}
OPENED = "count => window.app.graph.nodes.length === count"
SET = """settings => {
    for (const node of window.app.graph.nodes)
        for (const [name, value] of Object.entries(settings[node.title] ?? {})) {
            const widget = node.widgets.find(widget => widget.name === name);
            widget.value = value;
            widget.callback?.(value);
        }
}"""
LISTEN = """() => {
    window.seen = {progress: [], ended: null};
    window.app.api.addEventListener("progress", event => window.seen.progress.push(event.detail.value));
    for (const end of ["execution_success", "execution_error", "execution_interrupted"])
        window.app.api.addEventListener(end, event => { window.seen.ended = end; });
}"""
PLAYABLE = """() => [...document.querySelectorAll("video")]
    .some(video => video.src.includes("reconstruct_first") && video.videoWidth > 0)"""
TEXT = """(title => window.app.graph.nodes.find(node => node.title === title)
    .widgets.map(widget => String(widget.value)).join(" "))"""

LOADED = """count => [...document.querySelectorAll("[role=dialog] img")]
    .filter(image => image.complete && image.naturalWidth > 0).length >= count"""


@pytest.fixture(scope="module")
def finished(opened, host, tmp_path_factory):
    """The page after the run."""
    clip = tmp_path_factory.mktemp("clip") / "rendered.mp4"
    write_clip(clip)
    name = host.upload(clip)
    opened.set_input_files("#comfy-file-input", str(TEMPLATE))
    opened.wait_for_function(OPENED, arg=_nodes_of(TEMPLATE))
    opened.evaluate(SET, SETTINGS | {"Video Load": SETTINGS["Video Load"] | {"file": name}})
    opened.evaluate(LISTEN)
    # newer pages have a second one, with a menu
    opened.get_by_role("button", name="Run", exact=True).first.click()
    opened.wait_for_function("() => window.seen.ended")
    screenshot(opened, "reconstruct_first_finished.png")
    return opened


def _nodes_of(file: Path) -> int:
    return len(json.loads(file.read_text(encoding="utf-8"))["nodes"])


def test_the_run_succeeds_and_shows_progress(finished):
    seen = finished.evaluate("() => window.seen")
    assert seen["ended"] == "execution_success"
    # four steps of the inversion and four of the reconstruction
    assert seen["progress"].count(4) >= 2 and 1 in seen["progress"]


def test_the_nodes_that_took_long_say_how_long(finished):
    for title in ("STEM Inversion", "Reconstruct"):
        finished.wait_for_function("() => " + TEXT + f"('{title}').includes('4 steps in ')")


def test_the_video_is_shown_in_its_node(finished):
    finished.wait_for_function(PLAYABLE)


def test_the_text_of_the_node_that_shows_it_has_the_measures(finished):
    finished.wait_for_function("() => " + TEXT + "('How close it is').includes('PSNR')")


def test_the_templates_of_the_pack_are_offered_with_their_thumbnails(opened):
    opened.get_by_role("button", name="Templates").click()
    dialog = opened.get_by_role("dialog")
    names = [file.stem for file in TEMPLATES.values()]
    assert len(names) >= 6
    for name in names:
        dialog.get_by_text(name, exact=True).first.wait_for()
    opened.wait_for_function(LOADED, arg=len(names))
    screenshot(opened, "templates.png")
    opened.keyboard.press("Escape")
