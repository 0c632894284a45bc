"""The workflows that the pack ships."""

from __future__ import annotations

from collections.abc import Callable

from .fatezero_graphs import ddim_fatezero_edit, stem_fatezero_object, stem_fatezero_style
from .graph import Graph
from .tokenflow_graphs import ddim_tokenflow_edit, reconstruct_first, stem_tokenflow_edit

SHIPPED: tuple[Callable[[], Graph], ...] = (
    reconstruct_first,
    stem_tokenflow_edit,
    ddim_tokenflow_edit,
    stem_fatezero_style,
    stem_fatezero_object,
    ddim_fatezero_edit,
)
