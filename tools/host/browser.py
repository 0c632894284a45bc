"""The Chromium of this machine, and the host's page in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...batch.comfyui.client import HostClient
from .. import locations

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# fmt: off
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
# fmt: on
# Where the tests put pictures of the page, for people to look at; not committed.
SCREENSHOTS = locations.ROOT / "output" / "browser"
# Everything else is as ComfyUI has it, so that the tests see what people see.
SETTINGS = {"Comfy.TutorialCompleted": True}
# How long the page may take for anything on a busy machine.
MILLISECONDS = 240_000
READY = "() => Boolean(window.app?.graph && window.LiteGraph?.registered_node_types.STEMVideoLoad)"


def browser_path() -> str | None:
    """STEM_CHROMIUM, or a Chromium on PATH, or None.

    Raises:
        FileNotFoundError: STEM_CHROMIUM names no file.
    """
    chosen = os.environ.get("STEM_CHROMIUM")
    if chosen:
        if not os.path.isfile(chosen):
            raise FileNotFoundError(f"STEM_CHROMIUM names {chosen}, but there is no such file.")
        return chosen
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def screenshot(page: Any, name: str) -> None:
    """A picture of the page as it is."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / name)


@contextmanager
def opened_page(host: HostClient, executable: str) -> Iterator[Any]:
    """The page of a running host that has the pack; needs Playwright."""
    from playwright.sync_api import sync_playwright

    host.post_json("/settings", host.get_json("/settings") | SETTINGS)
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=executable, args=ARGUMENTS) as browser,
    ):
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(MILLISECONDS)
        page.goto(host.url)
        page.wait_for_function(READY)
        yield page
