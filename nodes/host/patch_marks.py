"""Telling the patches of this pack from those of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_MARK = "stem_inversion_method"


@dataclass(frozen=True)
class _Mark:
    method: Any


def mark(patch: Any, method: Any) -> None:
    """Notes on a patch which method it belongs to."""
    setattr(patch, _MARK, _Mark(method))


def is_marked(patch: object) -> bool:
    """Whether a patch is one of this pack."""
    return hasattr(patch, _MARK)


def method_of(patch: object) -> Any:
    """The method that a marked patch belongs to."""
    return getattr(patch, _MARK).method
