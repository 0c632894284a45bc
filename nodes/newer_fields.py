"""Fields of nodes that hosts newer than 0.3.75 know: given to those that do, left out for the others."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io


def advanced() -> dict[str, Any]:
    """Hides an input behind "show advanced", where the host can."""
    return {"advanced": True} if "advanced" in inspect.signature(io.Int.Input.__init__).parameters else {}


def found_by(*aliases: str) -> dict[str, Any]:
    """Words that find a node in the search beside its name, where the host can."""
    return {"search_aliases": list(aliases)} if "search_aliases" in inspect.signature(io.Schema).parameters else {}
