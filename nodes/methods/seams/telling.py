"""What a node tells the person who runs it."""

from __future__ import annotations

import logging
import sys


def tell(text: str, node_id: str | None) -> None:
    """Writes a text to ComfyUI's log, and on the node itself where its page is open.

    node_id: ComfyUI's hidden `unique_id`, or None outside ComfyUI.
    """
    logging.info(text)
    # Tools use the nodes without a server, whose module cannot even be imported there.
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    instance = getattr(server, "instance", None)
    if instance is not None and node_id is not None:
        instance.send_progress_text(text, node_id)
