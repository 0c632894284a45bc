"""TokenFlow: one step seen from inside, and whole edits, with the recorded keyframes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ....nodes.methods.attention.method import RUN
from ....nodes.methods.inversion.guidance import StepSchedule
from ....nodes.methods.inversion.inversion import Inversion, identity_of, noise_levels
from ....nodes.methods.inversion.sampling import denoise, denoising_sigmas
from ....nodes.methods.tokenflow.edit import TokenFlowGuider, TokenFlowSettings, start_latent
from . import golden
from .comparison import Comparison, compared, share_that_differs

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
        sigma = rearrange(call["timestep"], "rows -> rows 1 1 1")
        current = call["c"]["transformer_options"][RUN]
        if current.source:
            self.epsilon.append({})
            self.matches.append(dict(current.run.matches))
        groups = ["source"] if current.source else call["cond_or_uncond"]
        for group, rows in zip(groups, ((call["input"] - out) / sigma).chunk(len(groups)), strict=True):
            self.epsilon[-1][ROLE[group]] = rows
        return out

    def observe_attention(self, out: Tensor, extra_options: dict) -> Tensor:
        """attn1_output_patch: notes the attention outputs of the keyframes."""
        current = extra_options[RUN]
        if current.plan is None:
            groups = ["source"] if current.source else extra_options["cond_or_uncond"]
            for group, rows in zip(groups, out.chunk(len(groups)), strict=True):
                self.attention[ROLE[group], extra_options["transformer_index"]] = rows
        return out


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Every recorded edit."""
    runs = golden.settings(folder, "tokenflow")
    for name, run in runs.items():
        if isinstance(run, dict):
            inversion = _inversion(folder, name, run, runs.get(f"{name}.saved_timesteps"))
            yield from _edited(folder, name, run, inversion)


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


def _edited(folder: Path, name: str, run: dict, inversion: Inversion) -> Iterator[Comparison]:
    recorded, config, timesteps = golden.arrays(folder, "tokenflow"), run["config"], run["timesteps"]
    sdedit = name.startswith("sdedit")
    settings = TokenFlowSettings(
        cfg=config["guidance_scale"],
        batch_size=config["batch_size"],
        attention_injection=0.0 if sdedit else config["pnp_attn_t"],
        feature_injection=0.0 if sdedit else config["pnp_f_t"],
        source_rows="propagated",
        start_noise="renoised",
    )
    z = recorded[f"{name}.start"]
    yield compared(f"tokenflow {name} start", start_latent(inversion, timesteps[0], settings), z, ONE_STEP)
    schedule = StepSchedule(tuple(timesteps[::-1]), len(timesteps))
    guider = RecordedKeyframes(golden.model(folder), inversion, settings, schedule)
    guider.recorded = dict(zip(timesteps, recorded[f"{name}.pivot_frames"].long(), strict=True))
    prompts = {"positive": "target", "negative": "negative", "source": "source"}
    guider.inner_set_conds({key: golden.conditioning(folder, prompt) for key, prompt in prompts.items()})
    sigmas, steps = denoising_sigmas(inversion, schedule.timesteps, "alpha0"), []
    for step, timestep in enumerate(timesteps):
        samples = denoise(guider, z, sigmas[step : step + 2], [timestep], "TokenFlow Edit")
        z = guider.model_patcher.model.process_latent_in(samples)
        steps.append(z)
    for row, step in zip(recorded[f"{name}.steps"], run["stored_steps"], strict=True):
        yield compared(f"tokenflow {name} after step {step}", steps[step], row, WHOLE_LOOP)
    prefix = f"{name}.step0."
    if f"{prefix}pivot_pass.eps" not in recorded:
        return
    observer = Observer()
    guider.model_options["model_function_wrapper"] = observer.observe_model
    patches = guider.model_options["transformer_options"].setdefault("patches", {})
    patches["attn1_output_patch"] = [observer.observe_attention]
    denoise(guider, recorded[f"{name}.start"], sigmas[:2], timesteps[:1], "TokenFlow Edit")
    first_step = {key.removeprefix(prefix): array for key, array in recorded.items() if key.startswith(prefix)}
    ties = run.get("fp64_match_mismatch_fraction_step0", 0.0)
    yield from _first_step(f"tokenflow {name}.step0", first_step, observer, ties)


def _first_step(title: str, recorded: dict[str, Tensor], observer: Observer, ties: float) -> Iterator[Comparison]:
    """`ties` is the share of nearest tokens that the reference itself chooses differently in float64."""
    for number, (epsilon, matches) in enumerate(zip(observer.epsilon, observer.matches, strict=True)):
        key = f"batch_pass{number - 1}" if number else "pivot_pass"
        ours = torch.cat([epsilon[role] for role in "SUE"])
        yield compared(f"{title} {key} epsilon", ours, recorded[f"{key}.eps"], ONE_STEP)
        for which, part in (("cur", "first"), ("prev", "second")):
            layers = [ti for ti in range(16) if f"{key}.match_{which}.ti{ti:02}" in recorded]
            if layers:
                ours = torch.cat([getattr(matches[ti], part).flatten() for ti in layers])
                theirs = torch.cat([recorded[f"{key}.match_{which}.ti{ti:02}"].flatten() for ti in layers])
                difference = share_that_differs(ours, theirs)
                yield Comparison(f"{title} {key} nearest tokens ({which})", difference, ties)
    for ti in range(16):
        theirs = recorded.get(f"pivot_pass.attn1_out.ti{ti:02}")
        if theirs is not None:
            ours = torch.cat([observer.attention[role, ti] for role in "SUE"])
            yield compared(f"{title} attention of layer {ti}", ours, theirs, ONE_STEP)
