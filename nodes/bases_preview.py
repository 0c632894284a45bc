"""Bases Preview: which pixels share a base, and whether all bases are used."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io
from einops import rearrange

from ..stem_kernels.em import responsibilities
from .fields.layer_and_step import chosen_layer_and_step, layer_and_step_inputs
from .fields.shared import CATEGORY, InversionSocket
from .methods.inversion.inspection import ObservedFit, observed_fits
from .methods.inversion.inversion import Inversion
from .methods.seams.comfyui_versions import advanced, found_by
from .metrics.pictures import colours, enlarged
from .metrics.plot import bars

PURPOSE = "Bases Preview"
PIXELS = 8
# Pixels whose bases are looked up at a time.
ROWS = 1 << 14


class BasesPreview(io.ComfyNode):
    """INVERSION -> IMAGE, IMAGE, STRING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMBasesPreview",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("responsibilities"),
            description="Re-runs one step of a STEM inversion and shows the bases of a layer: every pixel in the "
            "colours of the bases responsible for it (similar bases have similar colours), and how many "
            "pixels each base is responsible for. What keeps its colour throughout the video shares its "
            "bases.",
            inputs=[
                InversionSocket.Input("inversion", tooltip="An inversion made with STEM Bases."),
                *layer_and_step_inputs(layer=-3),
                io.Int.Input(
                    "head",
                    default=0,
                    min=0,
                    max=63,
                    optional=True,
                    tooltip="Which attention head, where every head has bases of its own (em_space keys_per_head).",
                    **advanced(),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "bases", display_name="bases", tooltip="One image for each frame that the bases were fitted to."
                ),
                io.Image.Output("masses", display_name="masses", tooltip="Pixels of each base, the largest first."),
                io.String.Output("text", display_name="text", tooltip="The same in numbers."),
            ],
        )

    @classmethod
    def execute(cls, inversion: Inversion, layer: int, noise: float, head: int = 0) -> io.NodeOutput:
        where, timestep, title = chosen_layer_and_step(inversion, layer, noise, PURPOSE)
        observed, (height, width) = observed_fits(inversion, where, timestep, PURPOSE)
        fits = [_of_head(fit, head) for fit in observed]
        advance, mixed = comfy.utils.ProgressBar(sum(len(fit.features) for fit in fits)).update, []
        for fit in fits:
            shades = colours(fit.bases.centres)
            for rows in fit.features.split(ROWS):
                # every pixel is the mixture of the colours of its bases
                mixed.append(responsibilities(rows, fit.bases, inversion.stem.em) @ shades)
                advance(len(rows))
        maps = rearrange(torch.cat(mixed), "(n h w) rgb -> n h w rgb", h=height, w=width)
        picture = enlarged(maps, (PIXELS * inversion.size[0], PIXELS * inversion.size[1]))
        masses = torch.cat([fit.bases.mass for fit in fits]).sort(descending=True).values
        text = "\n".join([title, *map(_described, fits)])
        return io.NodeOutput(picture, bars(masses, f"pixels of each base, {title}"), text)


def _of_head(fit: ObservedFit, head: int) -> ObservedFit:
    """The fit of one head, where heads have their own: features [m, c], bases [k, c]."""
    if fit.features.ndim == 2:
        return fit
    heads = fit.features.shape[0]
    if head >= heads:
        raise ValueError(f"{PURPOSE}: there is no head {head}; the layer has {heads}, from 0 to {heads - 1}.")
    bases = type(fit.bases)(fit.bases.centres[head], fit.bases.mass[head], fit.bases.directions[head])
    return ObservedFit(fit.features[head], bases, fit.chunk)


def _described(fit: ObservedFit) -> str:
    mass = fit.bases.mass
    live, largest = int((mass > 0.5).sum()), 100 * float(mass.max() / mass.sum())
    return (
        f"chunk {fit.chunk}: {len(mass)} bases for {fit.features.shape[0]} pixels, {live} of them with at least one "
        f"pixel, spread like {float(fit.bases.perplexity):.0f} of equal size; the largest has {largest:.1f} %"
    )
