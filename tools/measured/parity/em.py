"""The EM routine alone, with the recorded draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ....nodes.methods.stem.settings import PRESETS
from ....stem_kernels.em import Bases, EMSettings, fit_bases, pool
from ....stem_kernels.initialisation import bases_from_noise
from . import golden
from .comparison import Comparison, compared, measured_limit


def reference_em(num_bases: int, iterations: int) -> EMSettings:
    """EM of the preset `reference_code` with another K and R."""
    return replace(PRESETS["reference_code"].em, num_bases=num_bases, iterations=iterations)


def fit_recorded(k: Tensor, v: Tensor, noise: Tensor, settings: EMSettings) -> tuple[Bases, Tensor]:
    """Bases of keys [h, m, d] and pooled values, from recorded draws [h, k, d]."""
    bases = fit_bases(k, bases_from_noise(k, noise), settings)
    return bases, pool(k, (v,), bases, settings)[0]


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Keys, values and masses of every recorded call."""
    recorded = golden.arrays(folder, "em")
    for name, run in golden.settings(folder, "em").items():
        k, v, noise = (recorded[f"{name}.{part}"] for part in ("k", "v", "noise"))
        bases, values = fit_recorded(k, v, noise, reference_em(run["K"], run["n_iters"]))
        sensitivity = run.get("fp64_rel_diff", {})
        for part, ours, key in (("k_bases", bases.centres, "k"), ("v_bases", values, "v"), ("mass", bases.mass, "v")):
            limit = measured_limit(sensitivity.get(key), rule=1e-4, most=1e-3)
            yield compared(f"{name} {part}", ours, recorded[f"{name}.{part}"], limit)
