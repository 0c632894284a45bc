"""The host's own page in a real browser."""

from __future__ import annotations

import json

import pytest
from comfyui_stem.batch.comfyui.process import link
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo import CLIP, FOLDER
from comfyui_stem.tools.host.browser import BROWSERS, browser_path, opened_page


@pytest.fixture(scope="module")
def opened(request):
    """The host's page in a browser; the host has the workflows' clip, and a checkpoint by the name of theirs."""
    executable = browser_path()
    if executable is None:
        pytest.skip(f"No Chromium: none of {', '.join(BROWSERS)} is on PATH, and STEM_CHROMIUM does not name one.")
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: run `make setup`.")
    # only now, so that nothing is started where there is no browser
    host = request.getfixturevalue("host")
    host.upload(CLIP)
    form = json.loads((FOLDER / "reconstruct_first.json").read_text(encoding="utf-8"))
    name = next(node["inputs"]["ckpt_name"] for node in form.values() if "ckpt_name" in node["inputs"])
    folder = request.getfixturevalue("host_process").base / "models" / "checkpoints"
    link(locations.from_environment().checkpoint, folder / name)
    with opened_page(host, executable) as page:
        yield page
