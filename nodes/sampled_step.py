"""Fields and checks of the nodes that look into one step of an inversion."""

from __future__ import annotations

from comfy_api.latest import io

from .host.inversion import Inversion
from .host.layer_map import SD1_LAYERS, AttentionLayer


def step_inputs(layer: int) -> list[io.Input]:
    """Where to look."""
    return [
        io.Int.Input(
            "layer",
            default=layer,
            min=0,
            max=len(SD1_LAYERS) - 1,
            tooltip="Self-attention layer, in order of execution: 0 and 1 are the finest of the encoder, 6 is the "
            "coarsest, 13 to 15 are the finest of the decoder.",
        ),
        io.Float.Input(
            "noise",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Which step of the inversion: 0 the first, with hardly any noise, 1 the last.",
        ),
    ]


def chosen_step(inversion: Inversion, layer: int, noise: float) -> tuple[AttentionLayer, int]:
    """The layer, and the timestep that is a share `noise` into the inversion."""
    return SD1_LAYERS[layer], inversion.timesteps[round(noise * (len(inversion.timesteps) - 1))]
