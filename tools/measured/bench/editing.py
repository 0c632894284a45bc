"""Steps of the editors beside plain sampling: what they hold in memory, and how long they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....nodes.methods.attention.frame_context import FrameContextAttention
from ....nodes.methods.attention.installing import install
from ....nodes.methods.attention.method import RUN
from ....nodes.methods.attention.one_call import as_one_call
from ....nodes.methods.fatezero.edit import FateZeroSettings
from ....nodes.methods.fatezero.edit import edit as edit_fatezero
from ....nodes.methods.fatezero.presets import PRESETS as EDIT_PRESETS
from ....nodes.methods.fatezero.prompts import read_prompt
from ....nodes.methods.fatezero.word_control import WordWishes, read_words
from ....nodes.methods.inversion.guidance import StepSchedule
from ....nodes.methods.inversion.inversion import Inversion, identity_of, noise_levels
from ....nodes.methods.inversion.sampling import denoise
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.stem.settings import PRESETS
from ....nodes.methods.tokenflow.edit import TokenFlowGuider, TokenFlowSettings
from ....nodes.methods.tokenflow.run import Pass, TokenFlowRun
from ...host.loaded_model import Loaded
from .results import VideoSize
from .timing import Workload

SOURCE, TARGET = "a photo of a cat on a chair", "a photo of a dog on a chair"
TIMESTEP = 501
TWO_STEPS = (TIMESTEP - 20, TIMESTEP)
CFG = 7.5
PURPOSE = "make bench"


def latents(video: VideoSize, seed: int = 0) -> Tensor:
    """Random LATENT samples of a video's size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(video.frames, 4, video.height // 8, video.width // 8, generator=generator)


def made_up_inversion(
    model: Any, loaded: Loaded, video: VideoSize, timesteps: tuple[int, ...] = (TIMESTEP,)
) -> Inversion:
    """An INVERSION whose latents are random: time and memory of an edit do not depend on their values."""
    sigmas = noise_levels(model, timesteps)
    return Inversion(
        trajectory=torch.stack([latents(video, seed) for seed in range(len(timesteps) + 1)]),
        timesteps=timesteps,
        sigmas=tuple(sigmas.tolist()),
        convention="next",
        source=loaded.prompt(SOURCE),
        model=model,
        identity=identity_of(model),
    )


def plain_step(loaded: Loaded, video: VideoSize) -> Callable[[], Tensor]:
    """One step of ComfyUI's own sampling of all frames, with guidance."""
    inversion = made_up_inversion(loaded.model, loaded, video)
    guider = comfy.samplers.CFGGuider(loaded.model)
    guider.inner_set_conds({"positive": loaded.prompt(TARGET), "negative": loaded.prompt("")})
    guider.set_cfg(CFG)
    sigmas = torch.tensor(inversion.sigmas).flip(0)
    return lambda: denoise(guider, inversion.trajectory[-1], sigmas, (TIMESTEP,), PURPOSE)


def fatezero_step(
    loaded: Loaded, method: Any, video: VideoSize, levels: frozenset[int] = FateZeroSettings.levels
) -> Callable[[], object]:
    """One step of a style edit with FateZero, with the attention of all `levels` (the published ones) fused, from an
    inversion through `method`."""
    inversion = made_up_inversion(install(loaded.model, method), loaded, video)
    source, target = (read_prompt(loaded.clip, text, "a", PURPOSE) for text in (SOURCE, TARGET))
    words = read_words(source, target, WordWishes("refine", 1.0), 1, PURPOSE)
    settings = FateZeroSettings(cfg=CFG, self_window=1.0, own=method, levels=levels)
    negative = loaded.prompt("")
    return lambda: edit_fatezero(loaded.model, inversion, target.conditioning, negative, words.control, settings)


def fatezero(loaded: Loaded, video: VideoSize) -> list[Workload]:
    """Plain sampling, FateZero as published (own and middle frame), and STEM-FateZero, with the levels of both."""
    stem, shipped = StemSelfAttention.from_settings(PRESETS["paper"].with_bases(256)), EDIT_PRESETS["style"].levels
    return [
        Workload("plain sampling", plain_step(loaded, video)),
        Workload("FateZero (DDIM, 2 frames)", fatezero_step(loaded, FrameContextAttention((0, "mid")), video)),
        Workload("STEM-FateZero", fatezero_step(loaded, stem, video, shipped), 256),
        Workload("STEM-FateZero, levels 1 to 3", fatezero_step(loaded, stem, video), 256),
    ]


class PerFrameGuider(TokenFlowGuider):
    """Plug-and-play applied to every frame on its own: a source pass and an edit pass of each, with injection."""

    purpose = "Plug-and-play, frame by frame"

    def predict(
        self, timestep: int, run: TokenFlowRun, conds: list, x: Tensor, sigma: Tensor, model_options: dict
    ) -> list[Tensor]:
        source, predicted = self.inversion.at(timestep, x.device), []
        edits = [(x, cond) for cond in conds]
        run.timestep = timestep
        for frame in range(len(x)):
            here = torch.tensor([frame])

            def call(video: Tensor, cond: list, more: dict, here: Tensor = here) -> Tensor:
                current = Pass(run, video is source, here, here, range(1), inject_attention=True, inject_features=True)
                options = {**model_options["transformer_options"], RUN: current, **more}
                options = {**model_options, "transformer_options": options}
                return self.run_model([cond], video[here], sigma[here], options)[0]

            of_conds = [partial(call, video, cond) for video, cond in ((source, self.conds["source"]), *edits)]
            predicted.append(as_one_call(of_conds)[1:])
            run.forget()
        return [torch.cat(frames) for frames in zip(*predicted, strict=True)]


def tokenflow(loaded: Loaded, video: VideoSize) -> list[Workload]:
    """Two steps of Plug-and-play on every frame alone, and of TokenFlow with guidance and injection in both, where each
    finds its correspondences or the second reads those of the first."""
    inversion = made_up_inversion(loaded.model, loaded, video, TWO_STEPS)
    settings = TokenFlowSettings(cfg=CFG, attention_injection=1.0, feature_injection=1.0, match_every=1)
    prompts, workloads = (loaded.prompt(TARGET), loaded.prompt("")), []
    for name, guider, match_every in (
        (PerFrameGuider.purpose, PerFrameGuider, 1),
        ("TokenFlow Edit", TokenFlowGuider, 1),
        ("TokenFlow Edit, match_every 2", TokenFlowGuider, 2),
    ):
        schedule = StepSchedule(TWO_STEPS, len(TWO_STEPS))
        made = guider(loaded.model, inversion, replace(settings, match_every=match_every), schedule)
        edit = partial(made.edit, *prompts, inversion.trajectory[-1], "alpha0")
        workloads.append(Workload(name, edit, more={"steps": len(TWO_STEPS)}))
    return workloads
