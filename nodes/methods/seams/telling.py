"""What a node tells the person who runs it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from comfy_execution.utils import get_executing_context


def tell(text: str) -> None:
    """Writes a text to ComfyUI's log, and on the node that runs."""
    logging.info(text)
    show(text)


def show(text: str) -> None:
    """Writes a text on the node that runs, in place of the last one, where ComfyUI's page is open."""
    server, running = running_server(), get_executing_context()
    if server is not None and running is not None:
        # A node that another one expands into is not on the page; its id begins with that of the other.
        server.PromptServer.instance.send_progress_text(text, running.node_id.partition(".")[0])


def running_server() -> Any:
    """ComfyUI's module `server` where its server runs, else None: tools use the nodes without, and cannot import it."""
    server = sys.modules.get("server")
    return server if getattr(getattr(server, "PromptServer", None), "instance", None) is not None else None
