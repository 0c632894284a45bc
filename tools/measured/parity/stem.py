"""STEM inversion and reconstruction with the recorded draws (preset `reference_code`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....nodes.methods.attention.installing import install, installed_method
from ....nodes.methods.inversion.inversion import noise_levels
from ....nodes.methods.inversion.sampling import SourceGuider, invert_between
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.stem.fitting import FitKey, Fitting
from ....nodes.methods.stem.settings import PRESETS
from ....stem_kernels.em import Bases
from ....stem_kernels.initialisation import bases_from_noise
from ....stem_kernels.token_parts import Tokens, parts_of
from . import golden
from .comparison import Comparison, compared, measured_limit
from .ddim import reconstructed
from .em import fit_recorded, reference_em

INVERSION, RECONSTRUCTION = 0, 1
WHOLE_RUN = 5e-2
# Of these runs the recording says that they are well conditioned as a whole.
TIGHT_WHOLE_RUNS = {"n8_16x16.T10.all.k16": 1e-3, "n8_16x16.T10.all.k16.r3": 1e-4}


@dataclass(frozen=True)
class RecordedFitting(Fitting):
    """EM from the draws of a recorded run, from the documented stream.

    seen: keys and values of every layer's first fit, [h, m, d].
    """

    seed: int
    phase: int
    timesteps: tuple[int, ...]
    seen: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def initial(self, features: Tokens, size: int, key: FitKey) -> Tensor:
        step = self.timesteps.index(key.timestep)
        if self.phase == RECONSTRUCTION:
            step = len(self.timesteps) - 1 - step
        first = parts_of(features)[0]
        shape = (*first.shape[:-2], size, first.shape[-1])
        draws = golden.standard_normal([self.seed, self.phase, step, key.chunk, key.layer], shape)
        return bases_from_noise(features, draws)

    def fit(self, features: Tokens, key: FitKey, values: Sequence[Tokens] = (), *more: Any) -> Bases:
        self.seen.setdefault(key.layer, tuple(torch.cat(parts_of(one), dim=-2) for one in (features, *values)))
        return super().fit(features, key, values, *more)


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Steps restarted from the recorded row before them, whole runs, and EM inside the first evaluation."""
    for name, run in golden.settings(folder, "stem").items():
        sigmas = noise_levels(golden.model(folder), run["timesteps"])
        yield from _single_steps(folder, name, run, sigmas)
        yield from _whole_run(folder, name, run, sigmas)
        yield from _inside_first_step(folder, name, run, sigmas)


def _guider(folder: Path, run: dict, phase: int) -> SourceGuider:
    preset = PRESETS["reference_code"]
    settings = replace(preset, em=reference_em(run["num_bases"], run["n_iters"]), scope_frames=run["batch_size"])
    fitting = RecordedFitting(settings, run["noise_seed"], phase, tuple(run["timesteps"]))
    model = install(golden.model(folder), StemSelfAttention(fitting))
    return SourceGuider(model, golden.conditioning(folder, "source"))


def _single_steps(folder: Path, name: str, run: dict, sigmas: Tensor) -> Iterator[Comparison]:
    recorded, timesteps = golden.arrays(folder, "stem")[f"{name}.traj"], run["timesteps"]
    rows = {-1: golden.clip(folder, name)}
    rows |= {timesteps.index(t): row for t, row in zip(run["stored_timesteps"], recorded, strict=True)}
    sensitivity = run.get("fp64_rel_diff_single_step")
    guider = _guider(folder, run, INVERSION)
    for step, row in rows.items():
        if step - 1 not in rows:
            continue
        samples = golden.to_samples(golden.model(folder), rows[step - 1])
        ours = invert_between(guider, samples, sigmas[step : step + 2], timesteps[step : step + 1], "next")[-1]
        limit = measured_limit(sensitivity[step] if sensitivity else None, rule=1e-4, most=1e-3)
        yield compared(f"stem {name} step {step}", ours, row, limit)


def _whole_run(folder: Path, name: str, run: dict, sigmas: Tensor) -> Iterator[Comparison]:
    stem, timesteps = golden.arrays(folder, "stem"), run["timesteps"]
    rule = TIGHT_WHOLE_RUNS.get(name, WHOLE_RUN)
    limit = measured_limit(max(run.get("fp64_rel_diff_per_step", [0.0])), rule, most=WHOLE_RUN)
    samples = golden.to_samples(golden.model(folder), golden.clip(folder, name))
    ours = invert_between(_guider(folder, run, INVERSION), samples, sigmas, timesteps, "next")
    rows = [timesteps.index(t) + 1 for t in run["stored_timesteps"]]
    yield compared(f"stem {name} whole inversion", ours[rows], stem[f"{name}.traj"], limit)
    ours = reconstructed(_guider(folder, run, RECONSTRUCTION), stem[f"{name}.traj"][-1], sigmas, timesteps)
    limit = measured_limit(run.get("fp64_rel_diff_recon"), rule, most=WHOLE_RUN)
    yield compared(f"stem {name} whole reconstruction", ours, stem[f"{name}.recon"], limit)


def _inside_first_step(folder: Path, name: str, run: dict, sigmas: Tensor) -> Iterator[Comparison]:
    stem = golden.arrays(folder, "stem")
    key = [run["noise_seed"], INVERSION, 0, 0]
    for ti in range(16):
        recorded = stem.get(f"{name}.noise.phase0.step0.chunk0.ti{ti:02}")
        if recorded is not None:
            ours = golden.standard_normal([*key, ti], tuple(recorded.shape))
            yield compared(f"stem {name} draws of layer {ti}", ours, recorded, 0.0)
    layers = [ti for ti in range(16) if f"{name}.step0.ti{ti:02}.k" in stem]
    if not layers:
        return
    guider = _guider(folder, run, INVERSION)
    samples = golden.to_samples(golden.model(folder), golden.clip(folder, name))
    invert_between(guider, samples, sigmas[:2], run["timesteps"][:1], "next")
    seen = installed_method(guider.model_patcher).fitting.seen
    for ti in layers:
        k, v, k_bases, v_bases = (stem[f"{name}.step0.ti{ti:02}.{part}"] for part in ("k", "v", "k_bases", "v_bases"))
        # Behind up to fifteen layers of EM: the rule of a single step.
        yield compared(f"stem {name} layer {ti} keys", seen[ti][0], k, 1e-4)
        yield compared(f"stem {name} layer {ti} values", seen[ti][1], v, 1e-4)
        noise = golden.standard_normal([*key, ti], tuple(k_bases.shape))
        bases, values = fit_recorded(k, v, noise, reference_em(run["num_bases"], run["n_iters"]))
        yield compared(f"stem {name} layer {ti} bases of keys", bases.centres, k_bases, 1e-4)
        yield compared(f"stem {name} layer {ti} bases of values", values, v_bases, 1e-4)
