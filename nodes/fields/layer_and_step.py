"""The fields of nodes that look at one layer in one step of an inversion, and what they choose."""

from __future__ import annotations

from comfy_api.latest import io

from ..methods.inversion.inversion import Inversion
from ..methods.seams.layer_map import AttentionLayer, self_attention_layers

MOST_LAYERS = 256


def layer_and_step_inputs(layer: int) -> list[io.Input]:
    """The fields `layer`, with its default, and `noise`."""
    return [
        io.Int.Input(
            "layer",
            default=layer,
            min=-MOST_LAYERS,
            max=MOST_LAYERS - 1,
            tooltip="Self-attention layer, in order of execution: 0 is the first of the encoder, -1 the last of the "
            "decoder, both at the finest resolution. SD 1.x and 2.x have 16 layers (6 is the coarsest), SDXL has 70.",
        ),
        noise_input(),
    ]


def noise_input() -> io.Float.Input:
    """The field `noise`."""
    return io.Float.Input(
        "noise",
        default=0.5,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="Which step of the inversion: 0 the first, with hardly any noise, 1 the last.",
    )


def step_at(inversion: Inversion, noise: float) -> int:
    """The timestep a share `noise` into the inversion."""
    return inversion.timesteps[round(noise * (len(inversion.timesteps) - 1))]


def chosen_layer_and_step(
    inversion: Inversion, layer: int, noise: float, purpose: str
) -> tuple[AttentionLayer, int, str]:
    """The layer (counted from the end if negative), the timestep a share `noise` into the inversion, and a title.

    Raises:
        ValueError: the model has no such layer.
    """
    layers = self_attention_layers(inversion.model.model.diffusion_model)
    if not -len(layers) <= layer < len(layers):
        raise ValueError(
            f"{purpose}: there is no layer {layer}; this model has {len(layers)}, 0 to {len(layers) - 1}, or "
            f"{-len(layers)} to -1 counted from the end."
        )
    chosen, timestep = layers[layer], step_at(inversion, noise)
    return chosen, timestep, f"layer {chosen.index} ({chosen.name}), timestep {timestep}"
