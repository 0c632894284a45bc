"""What a node tells the person who runs it."""

from __future__ import annotations

import logging

from server import PromptServer


def tell(text: str, node_id: str | None) -> None:
    """Writes a text to ComfyUI's log, and on the node itself where its page is open.

    node_id: ComfyUI's hidden `unique_id`, or None outside ComfyUI.
    """
    logging.info(text)
    server = getattr(PromptServer, "instance", None)  # there is none before ComfyUI has started it
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
