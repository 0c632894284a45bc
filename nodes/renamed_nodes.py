"""Nodes of this pack that had other names, for workflows that still use these."""

from __future__ import annotations

from typing import Any

# See `register_replacements`; no node has been renamed.
RENAMED_NODES: tuple[dict[str, Any], ...] = ()
