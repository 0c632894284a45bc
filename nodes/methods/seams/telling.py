"""What a node tells the person who runs it."""

from __future__ import annotations

import logging
import sys

from comfy_execution.utils import get_executing_context


def tell(text: str) -> None:
    """Writes a text to ComfyUI's log, and on the node that runs."""
    logging.info(text)
    show(text)


def show(text: str) -> None:
    """Writes a text on the node that runs, in place of the last one, where ComfyUI's page is open."""
    # Tools use the nodes without a server, whose module cannot even be imported there.
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    instance, running = getattr(server, "instance", None), get_executing_context()
    if instance is not None and running is not None:
        # A node that another one expands into is not on the page; its id begins with that of the other.
        instance.send_progress_text(text, running.node_id.partition(".")[0])
