"""DDIM inversion and denoising through ComfyUI's own guider and sampler machinery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import torch
from torch import Tensor
from tqdm.auto import trange

from ....stem_kernels.ddim import (
    declare_at,
    first_non_finite_frame,
    inversion_timesteps,
    move_exploding,
    select_timesteps,
    to_exploding,
    to_preserving,
)
from ..attention.installing import installed_method
from ..batching.frame_batches import budget_of
from ..seams.cpu_attention import faster_on_cpu
from ..seams.shared_prompt import share_prompt
from .batch_size import with_batch_size
from .costs import Clock, tell_memory
from .inversion import Inversion, NoiseConvention, identity_of, noise_levels
from .trajectory import Precision, Storage, bytes_in_memory, new_trajectory

Tail = Literal["alpha0", "zero"]


class SourceGuider(comfy.samplers.CFGGuider):
    """One conditioning and no guidance, as every inversion in the paper is run.

    Nodes that change guidance have nothing to change, and would read a negative prompt that there is not.
    """

    def __init__(self, model: Any, conditioning: list) -> None:
        super().__init__(model)
        self.inner_set_conds({"positive": conditioning})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: Any = None) -> Tensor:
        conds = [self.conds["positive"]]
        (denoised,) = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options or {})
        return denoised


def invert(
    model: Any,
    source: list,
    samples: Tensor,
    steps: int,
    convention: NoiseConvention,
    storage: Storage = "memory",
    kept_steps: int = 0,
    precision: Precision = "float32",
) -> Inversion:
    """DDIM inversion of a video (paper Eq. 3 and Alg. 1, line 5).

    Args:
        model: MODEL, with STEM Bases or any other self-attention on it.
        source: CONDITIONING of the source prompt.
        samples: LATENT samples [n, 4, h, w].
        steps: number of steps T.
        convention: "next" estimates the noise of the current latent at the timestep that it moves to, as the reference
            implementations do; "current" at its own timestep, as the paper prints it.
        storage, precision: where and as what the trajectory is kept (see `new_trajectory`).
        kept_steps: keep the latents of a schedule of so many steps alone, for edits of as many; 0 keeps all.

    Raises:
        ValueError: the steps to keep are not among those of the inversion.
    """
    timesteps = inversion_timesteps(steps)
    kept = select_timesteps(timesteps, kept_steps)
    timesteps = timesteps[: timesteps.index(kept[-1]) + 1]
    model = with_batch_size(model, len(samples), samples.shape[-2:])
    sigmas, guider = noise_levels(model, timesteps), SourceGuider(model, source)
    trajectory = invert_between(guider, samples, sigmas, timesteps, convention, storage, kept, precision)
    return Inversion(
        trajectory=trajectory,
        timesteps=kept,
        sigmas=tuple(noise_levels(model, kept).tolist()),
        convention=convention,
        source=source,
        model=model,
        identity=identity_of(model),
    )


def invert_between(
    guider: comfy.samplers.CFGGuider,
    samples: Tensor,
    sigmas: Tensor,
    timesteps: Sequence[int],
    convention: NoiseConvention,
    storage: Storage = "memory",
    kept: Sequence[int] | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """The latents at the ascending `sigmas`, `z` [len(sigmas), n, 4, h, w], on the CPU.

    `samples` is a LATENT's content, taken to lie at `sigmas[0]`; `timesteps` are those of the others. Of these, only
    the latents of `kept` are returned, if given.
    """
    places = {timestep: place for place, timestep in enumerate(timesteps if kept is None else kept, start=1)}
    shape = (len(places) + 1, *samples.shape)
    trajectory = new_trajectory(shape, storage, Path(folder_paths.get_temp_directory()), precision)

    def sampler(model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Any, disable: Any) -> Tensor:
        _check_finite(x, "The LATENT to invert")
        trajectory[0] = x
        x = to_exploding(x.float(), sigmas[0])
        for i in trange(len(sigmas) - 1, disable=disable):
            sigma, sigma_next = sigmas[i], sigmas[i + 1]
            comfy.model_management.throw_exception_if_processing_interrupted()
            declared = sigma_next if convention == "next" else sigma
            seen = declare_at(x, sigma, declared)
            denoised = model(seen, declared * seen.new_ones(seen.shape[0]), **extra_args)
            x = move_exploding(x, (seen - denoised) / declared, sigma, sigma_next)
            _check_finite(x, f"Inversion step {i + 1} of {len(sigmas) - 1} (timestep {timesteps[i]})")
            if timesteps[i] in places:
                trajectory[places[timesteps[i]]] = to_preserving(x, sigma_next)
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        return x

    run_sampler(guider, samples, sampler, sigmas, "Inversion", kept=bytes_in_memory(trajectory))
    return trajectory


def denoise(
    guider: comfy.samplers.CFGGuider,
    start: Tensor,
    sigmas: Tensor,
    timesteps: Sequence[int],
    what: str,
    after_move: Callable[[Tensor, int, Tensor], Tensor] | None = None,
) -> Tensor:
    """DDIM denoising from `start` (`z` at `sigmas[0]`, [n, 4, h, w]) down the `sigmas`; returns LATENT samples.

    The result is variance-preserving whether the schedule ends at 0 or at the first noise level of the table.
    `after_move` may change ComfyUI's latent after each step; it is told the timestep left and the noise level reached.
    """

    def sampler(model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Any, disable: Any) -> Tensor:
        x = to_exploding(start.to(x.device, torch.float32), sigmas[0])
        for i in trange(len(sigmas) - 1, disable=disable):
            sigma, sigma_next = sigmas[i], sigmas[i + 1]
            comfy.model_management.throw_exception_if_processing_interrupted()
            denoised = model(x, sigma * x.new_ones(x.shape[0]), **extra_args)
            x = move_exploding(x, (x - denoised) / sigma, sigma, sigma_next)
            if after_move is not None:
                x = after_move(x, timesteps[i], sigma_next)
            _check_finite(x, f"{what} step {i + 1} of {len(sigmas) - 1} (timestep {timesteps[i]})")
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        return to_preserving(x, sigmas[-1])

    return run_sampler(guider, start, sampler, sigmas, what)


def denoising_sigmas(inversion: Inversion, timesteps: Sequence[int], tail: Tail) -> Tensor:
    """Noise levels of `timesteps`, descending, and the level to end at: the table's first ("alpha0") or 0 ("zero")."""
    levels = [inversion.sigmas[inversion.entry(t)] for t in reversed(timesteps)]
    return torch.tensor([*levels, inversion.sigmas[0] if tail == "alpha0" else 0.0])


def run_sampler(
    guider: comfy.samplers.CFGGuider, samples: Tensor, sampler: Callable, sigmas: Tensor, what: str, kept: int = 0
) -> Tensor:
    """Run a sampler function without noise through ComfyUI, with its progress bar and preview.

    `what` runs, and `kept` bytes of memory that it leaves behind, are for what is told of its costs.
    """
    model, steps = guider.model_patcher, len(sigmas) - 1
    guider.model_options = comfy.model_patcher.create_model_options_clone(guider.model_options)
    options = guider.model_options["transformer_options"]
    options |= faster_on_cpu(options, model.load_device)
    share_prompt(options)
    at_once = getattr(guider, "frames_at_once", None)
    if at_once is None:
        at_once = budget_of(model, installed_method(model), len(samples), samples.shape[-2:])
    tell_memory(what, model, samples.shape, at_once, steps, kept)

    def timed(model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Any, disable: Any) -> Tensor:
        clock = Clock(what, steps)  # from here, where ComfyUI has loaded the model

        def after_step(state: dict) -> None:
            callback(state)
            clock.tick(state["i"] + 1)

        return sampler(model, x, sigmas, extra_args, after_step, disable)

    return guider.sample(
        torch.zeros_like(samples),
        samples,
        comfy.samplers.KSAMPLER(timed),
        sigmas,
        callback=latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=0,
    ).to(comfy.model_management.intermediate_device())


def _check_finite(latents: Tensor, where: str) -> None:
    frame = first_non_finite_frame(latents)
    if frame is not None:
        raise ValueError(
            f"{where} has NaN or infinity in frame {frame}. Values left the range of the model's precision, or the "
            "input already contained them. Check the input, or start ComfyUI with --force-fp32 (or --fp32-unet)."
        )
