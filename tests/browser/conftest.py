"""The host's own page in a real browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from comfyui_stem.tools.demo import CLIP

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# fmt: off
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
# fmt: on
READY = "() => Boolean(window.app?.graph && window.LiteGraph?.registered_node_types.STEMVideoLoad)"


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
