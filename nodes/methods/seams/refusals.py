"""Refusals: what would silently give a wrong picture is named before anything is computed."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_sampling
from torch import Tensor

from .control_hints import check_controls
from .patch_marks import origin

_UNSUPPORTED_CONDITIONING = {
    "area": "a region of the image",
    "mask": "a mask",
    "gligen": "GLIGEN boxes",
    "concat_latent_image": "an image to inpaint or to follow",
    "hooks": "hooks",
    "start_percent": "a range of the schedule",
    "end_percent": "a range of the schedule",
}


def check_model(model: Any, purpose: str) -> None:
    """Raise unless MODEL predicts noise or velocity on a table of discrete noise levels."""
    sampling = model.get_model_object("model_sampling")
    kinds = (comfy.model_sampling.EPS, comfy.model_sampling.V_PREDICTION)
    # Others (LCM, x0, EDM) are subclasses of these with a formula of their own.
    known = [kind.calculate_denoised for kind in kinds]
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    if not discrete or getattr(type(sampling), "calculate_denoised", None) not in known:
        bases = ", ".join(base.__name__ for base in type(sampling).__mro__[1:3])
        flow = isinstance(sampling, comfy.model_sampling.CONST)
        raise ValueError(
            f"{purpose}: this MODEL ({type(model.model).__name__}) "
            f"{'is a flow-matching model' if flow else f'samples with {bases}'}, but DDIM inversion is defined for "
            "models that predict noise (eps) or velocity (v) on discrete timesteps. Load a checkpoint of Stable "
            "Diffusion 1.x, 2.x or XL, and disconnect any node that changes its sampling."
        )
    if "easycache" in model.model_options.get("transformer_options", {}):
        raise ValueError(
            f"{purpose}: this MODEL carries EasyCache or LazyCache, which skip calls of the network and reuse an older "
            "result, but every step and pass is needed here. Disconnect that node from the MODEL chain."
        )
    refused = {
        "context_handler": "context windows",
        "sampler_calc_cond_batch_function": "a node that replaces how conditionings are batched",
    }
    for option, what in refused.items():
        if option in model.model_options:
            raise ValueError(
                f"{purpose}: this MODEL carries {what}, which splits or reorders the frames without this node knowing. "
                "Disconnect that node from the MODEL chain."
            )


def check_calls(model: Any, purpose: str) -> None:
    """Raise if a node wraps the calls of MODEL's network: it would count on one call a step, with all frames."""
    wrapper = model.model_options.get("model_function_wrapper")
    if wrapper is not None:
        raise ValueError(
            f"{purpose}: {origin(wrapper)} wraps the calls of the network (as DeepCache, TeaCache, tiled diffusion and "
            "IC-Light do), but a step of an edit has several calls, of the source and of the edit. Disconnect that "
            "node from the MODEL chain."
        )


def check_latent(latent: dict, purpose: str) -> Tensor:
    """The samples [n, 4, h, w] of a LATENT of video frames."""
    samples = latent.get("samples") if isinstance(latent, dict) else latent
    plain = isinstance(samples, Tensor) and not getattr(samples, "is_nested", False)
    if not plain or samples.ndim != 4 or samples.shape[1] != 4:
        shape = f"shaped {list(samples.shape)}" if plain else f"of another kind ({type(samples).__name__})"
        raise ValueError(
            f"{purpose}: the LATENT is {shape}; a batch of frames [frames, 4, height, width] is needed. Encode the "
            "frames with the VAE Encode node and the VAE of the checkpoint that MODEL comes from."
        )
    if samples.shape[0] < 1:
        raise ValueError(f"{purpose}: the LATENT contains no frame. Select at least one frame.")
    return samples


def check_conditioning(conditioning: list, role: str, purpose: str, frames: int | None = None) -> None:
    """Raise unless a CONDITIONING is one prompt for the whole picture and the whole run.

    frames: of the clip, for an edit that takes ControlNets; None where they are refused.
    """
    if len(conditioning) != 1:
        raise ValueError(
            f"{purpose}: the {role} conditioning has {len(conditioning)} entries (combined, scheduled or area "
            "prompts); one is needed. Connect a single CLIP Text Encode."
        )
    embedding, options = conditioning[0]
    if options.get("control") is not None:
        if frames is None:
            raise ValueError(
                f"{purpose}: the {role} conditioning has a ControlNet, which only edits take: an inversion and its "
                "reconstruction follow the video alone. Connect a plain CLIP Text Encode."
            )
        check_controls(options["control"], frames, role, purpose)
    for key, what in _UNSUPPORTED_CONDITIONING.items():
        if options.get(key) is not None:
            raise ValueError(
                f"{purpose}: the {role} conditioning uses {what} ({key}), which is not supported: it would silently be "
                "ignored or misplaced. Connect a plain CLIP Text Encode."
            )
    if embedding.shape[0] != 1:
        raise ValueError(
            f"{purpose}: the {role} conditioning has {embedding.shape[0]} prompts, one per frame; a single prompt for "
            "all frames is needed. Connect a plain CLIP Text Encode."
        )
