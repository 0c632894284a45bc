"""Plug-and-play's convolution feature: taken from the source pass, put into the edit pass.

No patch of ComfyUI's reaches a residual block, so hooks are set for the time of one call of the UNet.
"""

from __future__ import annotations

from typing import Any

from greenlet import getcurrent
from torch import Tensor, nn

from ....stem_kernels.attention import joined
from ..attention.method import RUN
from ..attention.one_call import parts_of
from ..seams.network_call import NetworkCall
from .run import Pass


def inject_feature(block: int, executor: Any, call: NetworkCall) -> Tensor:
    """Around the network, once `block` is given (see `feature_block`): records the feature in source passes and
    replaces it in edit passes, whose convolutions are not computed."""
    passes, mine = [(of[RUN], rows) for of, rows in parts_of(call.options, call.x.shape[0])], getcurrent()
    if not all(isinstance(current, Pass) and current.inject_features for current, _ in passes):
        return call.made(executor)
    # a network wants at least one row
    computed = [rows for current, rows in passes if current.source] or [slice(0, 1)]

    def of_source(module: nn.Module, inputs: tuple) -> tuple | None:
        # passes in lockstep have their hooks there at the same time
        return (joined([inputs[0][rows] for rows in computed]), *inputs[1:]) if getcurrent() is mine else None

    def replaced(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        if getcurrent() is not mine:
            return None
        of_sources, features = iter(output.split([rows.stop - rows.start for rows in computed])), []
        for current, _ in passes:
            if current.source:
                features.append(next(of_sources))
                current.keep_feature(features[-1])
            else:
                features.append(current.source_feature().to(output))
        return joined(features)

    layers = executor.class_obj.output_blocks[block][0]
    # The value after the second convolution, before the skip is added.
    handles = [
        layers.in_layers.register_forward_pre_hook(of_source),
        layers.emb_layers.register_forward_pre_hook(of_source),
        layers.out_layers.register_forward_hook(replaced),
    ]
    try:
        return call.made(executor)
    finally:
        for handle in handles:
            handle.remove()
