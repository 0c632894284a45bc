"""Reconstruct: denoise an inversion with its own prompt, to see how good it is before editing."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .fields.shared import CATEGORY, InversionSocket, guidance_interval, guidance_window, steps_input, tail_input
from .methods.inversion.inversion import Inversion
from .methods.inversion.matching import check_same_checkpoint
from .methods.inversion.reconstruction import reconstruct
from .methods.seams.comfyui_versions import found_by
from .methods.seams.refusals import check_conditioning, check_model

PURPOSE = "Reconstruct"


class Reconstruct(io.ComfyNode):
    """INVERSION -> LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMReconstruct",
            display_name="Reconstruct",
            category=CATEGORY,
            **found_by("DDIM reconstruction", "ddim", "round trip"),
            description="Denoises an inversion with the source prompt. The result should look like the source; if it "
            "does not, no edit will be good either.",
            inputs=[
                InversionSocket.Input("inversion", tooltip="From STEM Inversion Sampler."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="A model of the same checkpoint to use instead of the inversion's own, for example one "
                    "without STEM Bases, to compare.",
                ),
                steps_input(),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    optional=True,
                    tooltip="Guidance scale. 1 means no guidance, which is how the inversion was made.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="Negative prompt; required unless cfg is 1."),
                tail_input(optional=True),
                *guidance_interval(),
            ],
            outputs=[io.Latent.Output(tooltip="The reconstructed frames, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls,
        inversion: Inversion,
        steps: int,
        model: Any = None,
        negative: list | None = None,
        cfg: float = 1.0,
        tail: str = "alpha0",
        **interval: float,
    ) -> io.NodeOutput:
        if model is None:
            model = inversion.model
        check_model(model, PURPOSE)
        check_same_checkpoint(model, inversion, PURPOSE)
        if negative is not None:
            check_conditioning(negative, "negative", PURPOSE)
        elif cfg != 1.0:
            raise ValueError(
                f"{PURPOSE}: cfg is {cfg:g}, but no negative prompt is connected, so there is nothing to guide away "
                "from. Connect a CLIP Text Encode to negative (it may be empty), or set cfg to 1."
            )
        samples = reconstruct(inversion, model, inversion.source, negative, cfg, guidance_window(interval), steps, tail)
        return io.NodeOutput({"samples": samples})
