"""Telling the patches of this pack from those of others."""

from __future__ import annotations

from typing import Any

from comfy.patcher_extension import WrappersMP

# How the names begin that this pack gives to wrappers and transformer options.
OURS = "stem_inversion"
_MARK = f"{OURS}_method"


def mark(patch: Any, method: Any) -> None:
    """Notes on a patch which method it belongs to."""
    setattr(patch, _MARK, method)


def is_marked(patch: object) -> bool:
    """Whether a patch is one of this pack."""
    return hasattr(patch, _MARK)


def method_of(patch: object) -> Any:
    """The method that a marked patch belongs to."""
    return getattr(patch, _MARK)


def is_bare(model: Any) -> bool:
    """Whether a MODEL has nothing on it but weights: no patch, wrapper or hook that could look at several frames."""
    options = [model.model_options, model.wrappers, model.callbacks, model.injections, model.hook_patches]
    return all(map(_holds_nothing, options)) and set(model.object_patches) <= {"model_sampling"}


def has_only_ours(transformer_options: dict) -> bool:
    """Whether a call of the network meets nothing of other packs: no patch, and no wrapper around the network."""
    patches = (patch for patches in transformer_options.get("patches", {}).values() for patch in patches)
    replaced = (patch for of in transformer_options.get("patches_replace", {}).values() for patch in of.values())
    wrappers = transformer_options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {})
    return all(map(is_marked, (*patches, *replaced))) and all(str(key).startswith(OURS) for key in wrappers)


def _holds_nothing(options: Any) -> bool:
    return all(map(_holds_nothing, options.values())) if isinstance(options, dict) else not options


def origin(patch: object) -> str:
    """Where another node's patch comes from, for messages."""
    function = getattr(patch, "__func__", patch)
    name = getattr(function, "__qualname__", type(patch).__qualname__)
    module = getattr(function, "__module__", None) or type(patch).__module__
    # ComfyUI names the modules of packs by their paths
    module = module.replace("\\", "/").rpartition("/")[2]
    return f"another node's patch ({module}.{name})"
