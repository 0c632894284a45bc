"""The host's own page in a real browser."""

from __future__ import annotations

import pytest
from comfyui_stem.tools.browser import BROWSERS, browser_path, opened_page
from comfyui_stem.tools.demo import CLIP


@pytest.fixture(scope="module")
def opened(request):
    """The host's page in a browser; the host has the workflows' clip."""
    executable = browser_path()
    if executable is None:
        pytest.skip(f"No Chromium: none of {', '.join(BROWSERS)} is on PATH, and STEM_CHROMIUM does not name one.")
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: run `make setup`.")
    # only now, so that nothing is started where there is no browser
    host = request.getfixturevalue("host")
    host.upload(CLIP)
    with opened_page(host, executable) as page:
        yield page
