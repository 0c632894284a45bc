"""STEM Inversion Sampler: from a video to the noise that gives it back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..stem_kernels.ddim import MAX_STEPS, to_exploding
from .fields.shared import CATEGORY, InversionSocket, choice
from .methods.editing.mask import checked_mask
from .methods.inversion.sampling import invert
from .methods.seams.comfyui_versions import advanced, found_by
from .methods.seams.refusals import check_conditioning, check_latent, check_model

PURPOSE = "STEM Inversion Sampler"


class InversionSampler(io.ComfyNode):
    """DDIM inversion of a LATENT of frames with whatever MODEL is given."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMInversionSampler",
            display_name="STEM Inversion Sampler",
            category=CATEGORY,
            **found_by("DDIM inversion", "ddim", "invert", "invert video", "unsample", "unsampler"),
            description="Takes a video from its latents back to noise by DDIM inversion. With STEM Bases on the MODEL "
            "this is STEM inversion; with any other MODEL it is plain DDIM inversion.",
            inputs=[
                io.Model.Input("model", tooltip="The model to invert with, normally from STEM Bases."),
                io.Conditioning.Input("positive", tooltip="The source prompt: what the video shows."),
                io.Latent.Input(
                    "latent",
                    tooltip="The frames, encoded by VAE Encode. A mask from Set Latent Noise Mask marks where edits "
                    "may change them.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=MAX_STEPS,
                    tooltip="Number of DDIM steps. The edit uses the same steps or a subset of them.",
                ),
                choice(
                    "noise_convention",
                    ["next", "current"],
                    "At which timestep the noise of a latent is estimated. next: the one it moves to (the "
                    "authors' code; matches the later denoising). current: its own (the paper's Eq. 3).",
                    **advanced(),
                ),
                choice(
                    "keep_trajectory_in",
                    ["memory", "file"],
                    "Where the latents of all steps are kept: 65 KB per frame and step at 512x512. file keeps them in "
                    "a temporary file instead of in memory; for very long clips.",
                    optional=True,
                    **advanced(),
                ),
                io.Int.Input(
                    "kept_steps",
                    default=0,
                    min=0,
                    max=MAX_STEPS,
                    tooltip="Keep the latents of this many steps alone, for edits of as many steps: an inversion of "
                    "500 steps of which 50 are kept needs a tenth of the memory. 0 keeps all.",
                    optional=True,
                    **advanced(),
                ),
                choice(
                    "keep_trajectory_as",
                    ["float32", "float16"],
                    "The precision in which these latents are kept. float16 needs half the memory; edits from the two "
                    "look the same (74 dB or more apart where it was measured).",
                    optional=True,
                    **advanced(),
                ),
            ],
            outputs=[
                InversionSocket.Output(
                    "inversion", display_name="inversion", tooltip="For Reconstruct and the edit nodes."
                ),
                io.Latent.Output(
                    "noisy_latent",
                    display_name="noisy latent",
                    tooltip="The final latent, for ComfyUI's samplers together with DisableNoise.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list,
        latent: dict,
        steps: int,
        noise_convention: str = "next",
        keep_trajectory_in: str = "memory",
        kept_steps: int = 0,
        keep_trajectory_as: str = "float32",
    ) -> io.NodeOutput:
        check_model(model, PURPOSE)
        check_conditioning(positive, "source", PURPOSE)
        samples, mask = check_latent(latent, PURPOSE), latent.get("noise_mask")
        if mask is not None:
            mask = checked_mask(mask, len(samples), PURPOSE)
        inversion = invert(
            model, positive, samples, steps, noise_convention, keep_trajectory_in, kept_steps, keep_trajectory_as
        )
        noisy = model.model.process_latent_out(to_exploding(inversion.latent(-1), inversion.sigmas[-1]))
        return io.NodeOutput(replace(inversion, mask=mask), latent | {"samples": noisy})
