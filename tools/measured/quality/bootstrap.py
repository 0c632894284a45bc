"""Means with intervals: how far a mean over clips would move with other clips and seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000


@dataclass(frozen=True)
class Estimate:
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def estimate(values: Mapping[Hashable, Sequence[float]], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of the clips' means. values: by clip, one number for each seed (or edit) of it.

    Clips are drawn with replacement and then, within each, its numbers: those of one clip are not independent.
    """
    rng = np.random.default_rng(seed)
    clips = list(values.values())
    counts = np.array([len(numbers) for numbers in clips])
    table = np.zeros((len(clips), counts.max()))
    for row, numbers in zip(table, clips, strict=True):
        row[: len(numbers)] = numbers
    drawn = rng.integers(len(clips), size=(resamples, len(clips)))
    within = (rng.random((resamples, len(clips), counts.max())) * counts[drawn][..., None]).astype(int)
    means = table[drawn[..., None], within].mean(axis=(1, 2))
    low, high = np.quantile(means, (0.025, 0.975))
    mean = float(np.mean([np.mean(numbers) for numbers in clips]))
    return Estimate(mean, float(low), float(high))
