"""Bases for an edit that was asked to use them."""

from __future__ import annotations

from typing import Any

from .inversion import Inversion
from .self_attention import installed_method
from .stem_attention import StemSelfAttention


def stem_for_edit(model: Any, inversion: Inversion, purpose: str) -> StemSelfAttention:
    """STEM self-attention with the settings of STEM Bases on the MODEL of an edit, or else of its inversion.

    Raises:
        ValueError: neither went through STEM Bases.
    """
    method = installed_method(model)
    if isinstance(method, StemSelfAttention):
        return method
    if inversion.stem is None:
        raise ValueError(
            f"{purpose}: attention is set to stem, but neither the MODEL nor the INVERSION went through STEM Bases, so "
            "there are no settings for the bases. Put STEM Bases before this node or before the inversion, or choose "
            "another attention."
        )
    return StemSelfAttention.from_settings(inversion.stem)
