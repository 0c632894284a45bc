"""Plug-and-play's convolution feature: taken from the source pass, put into the edit pass.

No patch of ComfyUI's reaches a residual block, so a forward hook is set for the time of one call of the UNet.
"""

from __future__ import annotations

from typing import Any

from einops import repeat
from torch import Tensor, nn

from ..attention.method import RUN
from .attention import TokenFlowRun


def inject_feature(block: int, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
    """DIFFUSION_MODEL wrapper, once `block` is given (see `feature_block`): records the feature in source passes and
    replaces it in edit passes."""
    options = kwargs.get("transformer_options") or args[-1]
    run: TokenFlowRun = options[RUN]
    if run.current is None or not run.current.inject_features:
        return executor(*args, **kwargs)

    def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        run.keep_feature(output)

    def replace(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        groups = output.shape[0] // run.feature.shape[0]
        return repeat(run.feature.to(output), "n c h w -> (g n) c h w", g=groups)

    # The value after the second convolution, before the skip is added.
    module = executor.class_obj.output_blocks[block][0].out_layers
    handle = module.register_forward_hook(record if run.current.source else replace)
    try:
        return executor(*args, **kwargs)
    finally:
        handle.remove()
