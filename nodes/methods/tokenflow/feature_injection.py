"""Plug-and-play's convolution feature: taken from the source pass, put into the edit pass.

No patch of ComfyUI's reaches a residual block, so a forward hook is set for the time of one call of the UNet.
"""

from __future__ import annotations

from typing import Any

from greenlet import getcurrent
from torch import Tensor, nn

from ..attention.method import RUN
from .run import Pass


def inject_feature(block: int, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
    """DIFFUSION_MODEL wrapper, once `block` is given (see `feature_block`): records the feature in source passes and
    replaces it in edit passes."""
    options = kwargs.get("transformer_options") or args[-1]
    current, mine = options[RUN], getcurrent()
    if not isinstance(current, Pass) or not current.inject_features:
        return executor(*args, **kwargs)

    def hook(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        # passes in lockstep have their hooks there at the same time
        if getcurrent() is not mine:
            return None
        if current.source:
            current.keep_feature(output)
            return None
        return current.source_feature().to(output)

    # The value after the second convolution, before the skip is added.
    module = executor.class_obj.output_blocks[block][0].out_layers
    handle = module.register_forward_hook(hook)
    try:
        return executor(*args, **kwargs)
    finally:
        handle.remove()
