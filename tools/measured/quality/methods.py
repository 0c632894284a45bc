"""The self-attention methods of the variants, and a MODEL with one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .variants import Variant, changes_of


def method_of(variant: Variant, seed: int) -> Any:
    """The self-attention method of a variant; None where the model is left as it is."""
    from ....nodes.methods.attention.frame_context import FrameContextAttention
    from ....nodes.methods.stem.attention import StemSelfAttention
    from ....nodes.methods.stem.settings import PRESETS
    from ....stem_kernels.frame_context import parse_frame_references

    if variant.plain:
        return None
    if variant.inversion == "ddim":
        listed = None if variant.context == "all" else parse_frame_references(variant.context)
        return FrameContextAttention(listed)
    settings = PRESETS[variant.preset]
    changes = changes_of(variant)
    of_em = {name: value for name, value in changes.items() if hasattr(settings.em, name)}
    others = {name: value for name, value in changes.items() if name not in of_em}
    em = replace(settings.em, num_bases=variant.num_bases, **of_em)
    return StemSelfAttention.from_settings(replace(settings, em=em, seed=seed, **others))


def installed(model: Any, method: Any) -> Any:
    """MODEL with a method on its self-attention, or MODEL itself."""
    from ....nodes.methods.attention.installing import install

    return model if method is None else install(model, method)
