"""TokenFlow: one step seen from inside, and whole edits, with the recorded keyframes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....nodes.methods.attention.method import RUN
from ....nodes.methods.editing.guider import StepSchedule
from ....nodes.methods.inversion.inversion import Inversion, identity_of, noise_levels
from ....nodes.methods.inversion.sampling import denoise, denoising_sigmas
from ....nodes.methods.tokenflow.edit import TokenFlowGuider, TokenFlowSettings, prepared, start_latent
from ..errors import relative_error
from . import golden
from .case import Case, share_that_differs

WHOLE_LOOP = 1e-3
ONE_STEP = 1e-5
ROLE = {"source": "S", 1: "U", 0: "E"}


class RecordedKeyframes(TokenFlowGuider):
    """A guider whose keyframes are the recorded ones."""

    recorded: dict[int, Tensor]

    def keyframes_at(self, timestep: int) -> Tensor:
        return self.recorded[timestep]


@dataclass
class Observer:
    """What the passes of a step computed, in order: (pass, group) -> epsilon; matches and attention outputs."""

    epsilon: list[dict[str, Tensor]] = field(default_factory=list)
    matches: list[dict[int, Any]] = field(default_factory=list)
    attention: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def observe_model(self, apply_model: Any, call: dict) -> Tensor:
        """model_function_wrapper: notes the noise estimates of a call."""
        out = apply_model(call["input"], call["timestep"], **call["c"])
        sigma = call["timestep"].reshape(-1, 1, 1, 1)
        run = call["c"]["transformer_options"][RUN]
        source = run.current.source
        if source:
            self.epsilon.append({})
            self.matches.append(dict(run.matches))
        groups = ["source"] if source else call["cond_or_uncond"]
        for group, rows in zip(groups, ((call["input"] - out) / sigma).chunk(len(groups)), strict=True):
            self.epsilon[-1][ROLE[group]] = rows
        return out

    def observe_attention(self, out: Tensor, extra_options: dict) -> Tensor:
        """attn1_output_patch: notes the attention outputs of the keyframes."""
        current = extra_options[RUN].current
        if current.plan is None:
            groups = ["source"] if current.source else extra_options["cond_or_uncond"]
            for group, rows in zip(groups, out.chunk(len(groups)), strict=True):
                self.attention[ROLE[group], extra_options["transformer_index"]] = rows
        return out


def cases(folder: Path) -> Iterator[Case]:
    """Every recorded edit."""
    runs = golden.settings(folder, "tokenflow")
    for name, run in runs.items():
        if isinstance(run, dict):
            yield from _run(folder, name, run, runs.get(f"{name}.saved_timesteps"))


def _run(folder: Path, name: str, run: dict, saved: list[int] | None) -> Iterator[Case]:
    recorded, config = golden.arrays(folder, "tokenflow"), run["config"]
    inversion = _inversion(folder, name, run, saved)
    ascending = run["timesteps"][::-1]
    sdedit = name.startswith("sdedit")
    settings = TokenFlowSettings(
        cfg=config["guidance_scale"],
        batch_size=config["batch_size"],
        attention_injection=0.0 if sdedit else config["pnp_attn_t"],
        feature_injection=0.0 if sdedit else config["pnp_f_t"],
        source_rows="propagated",
        start_noise="renoised",
    )
    start = start_latent(inversion, run["timesteps"][0], settings)
    yield Case(f"tokenflow {name} start", relative_error(start, recorded[f"{name}.start"]), ONE_STEP)
    schedule = StepSchedule(tuple(ascending), len(ascending))
    keyframes = dict(zip(run["timesteps"], recorded[f"{name}.pivot_frames"].long(), strict=True))
    steps = _edit(folder, inversion, settings, schedule, keyframes, recorded[f"{name}.start"])
    for row, step in zip(recorded[f"{name}.steps"], run["stored_steps"], strict=True):
        yield Case(f"tokenflow {name} after step {step}", relative_error(steps[step], row), WHOLE_LOOP)
    if f"{name}.step0.pivot_pass.eps" in recorded:
        ties = run.get("fp64_match_mismatch_fraction_step0", 0.0)
        yield from _first_step(folder, name, inversion, settings, schedule, keyframes, ties)


def _inversion(folder: Path, name: str, run: dict, saved: list[int] | None) -> Inversion:
    """The source latents of an edit as an INVERSION: the recorded T=10 inversion, or the rows that were saved."""
    model, size = golden.model(folder), "n11_12x20" if "12x20" in name else "n8_16x16"
    frames = run["config"]["n_frames"]
    if saved is None:
        timesteps = golden.settings(folder, "ddim")[f"{size}.T10"]["stored_timesteps"]
        rows = golden.arrays(folder, "ddim")[f"{size}.T10.traj"][:, :frames]
    else:
        timesteps, rows = saved, golden.arrays(folder, "tokenflow")[f"{name}.saved"]
    clean = golden.arrays(folder, "common")[f"clip.{size}"][:frames]
    return Inversion(
        trajectory=torch.cat([clean[None], rows]),
        timesteps=tuple(timesteps),
        sigmas=tuple(noise_levels(model, timesteps).tolist()),
        convention="next",
        source=golden.conditioning(folder, "source"),
        model=model,
        identity=identity_of(model),
    )


def _guider(
    folder: Path, model: Any, inversion: Inversion, settings: TokenFlowSettings, schedule: StepSchedule
) -> RecordedKeyframes:
    guider = RecordedKeyframes(prepared(model, inversion.frames, settings), inversion, settings, schedule)
    prompts = {"positive": "target", "negative": "negative", "source": "source"}
    guider.inner_set_conds({key: golden.conditioning(folder, name) for key, name in prompts.items()})
    guider.set_cfg(settings.cfg)
    return guider


def _edit(
    folder: Path,
    inversion: Inversion,
    settings: TokenFlowSettings,
    schedule: StepSchedule,
    keyframes: dict[int, Tensor],
    start: Tensor,
) -> dict[int, Tensor]:
    """`z` after every denoising step, each from our own step before it."""
    guider = _guider(folder, golden.model(folder), inversion, settings, schedule)
    guider.recorded = keyframes
    sigmas, z, after = denoising_sigmas(inversion, schedule.timesteps, "alpha0"), start, {}
    for step, timestep in enumerate(schedule.descending):
        samples = denoise(guider, z, sigmas[step : step + 2], [timestep], "TokenFlow Edit")
        z = after[step] = guider.model_patcher.model.process_latent_in(samples)
    return after


def _first_step(
    folder: Path,
    name: str,
    inversion: Inversion,
    settings: TokenFlowSettings,
    schedule: StepSchedule,
    keyframes: dict[int, Tensor],
    ties: float,
) -> Iterator[Case]:
    """`ties` is the share of nearest tokens that the reference itself chooses otherwise in float64."""
    recorded, observer = golden.arrays(folder, "tokenflow"), Observer()
    model = golden.model(folder).clone()
    model.set_model_unet_function_wrapper(observer.observe_model)
    model.set_model_attn1_output_patch(observer.observe_attention)
    # A clone would copy the observer along with the bound methods, so it is taken from the last one.
    guider = _guider(folder, model, inversion, settings, schedule)
    observer = guider.model_options["model_function_wrapper"].__self__
    patches = guider.model_options["transformer_options"]["patches"]
    patches["attn1_output_patch"] = [observer.observe_attention]
    guider.recorded = keyframes
    sigmas = denoising_sigmas(inversion, schedule.timesteps, "alpha0")
    denoise(guider, recorded[f"{name}.start"], sigmas[:2], schedule.descending[:1], "TokenFlow Edit")

    prefix = f"{name}.step0"
    passes = ["pivot_pass", *(f"batch_pass{b}" for b in range(len(observer.epsilon) - 1))]
    for number, name_of_pass in enumerate(passes):
        epsilon = torch.cat([observer.epsilon[number][role] for role in "SUE"])
        yield Case(
            f"tokenflow {prefix} {name_of_pass} epsilon",
            relative_error(epsilon, recorded[f"{prefix}.{name_of_pass}.eps"]),
            ONE_STEP,
        )
        for which, part in (("cur", "first"), ("prev", "second")):
            layers = [ti for ti in range(16) if f"{prefix}.{name_of_pass}.match_{which}.ti{ti:02}" in recorded]
            if not layers:
                continue
            ours = torch.cat([getattr(observer.matches[number][ti], part).flatten() for ti in layers])
            theirs = [recorded[f"{prefix}.{name_of_pass}.match_{which}.ti{ti:02}"].flatten() for ti in layers]
            difference = share_that_differs(ours, torch.cat(theirs))
            yield Case(f"tokenflow {prefix} {name_of_pass} nearest tokens ({which})", difference, ties)
    for ti in range(16):
        outputs = recorded.get(f"{prefix}.pivot_pass.attn1_out.ti{ti:02}")
        if outputs is not None:
            ours = torch.cat([observer.attention[role, ti] for role in "SUE"])
            yield Case(f"tokenflow {prefix} attention of layer {ti}", relative_error(ours, outputs), ONE_STEP)
