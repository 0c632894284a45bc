"""DDIM schedules and moves, in the two spaces that meet here.

`z` is the variance-preserving latent of DDIM, `x = z * sqrt(1 + sigma^2)` the variance-exploding one of ComfyUI.
`alpha` is the cumulative product that the paper calls alpha_t, and `sigma = sqrt((1 - alpha) / alpha)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import reduce
from torch import Tensor

TRAIN_TIMESTEPS = 1000
# With a spacing of 1 and the offset of 1, a thousandth step would fall off the table.
MAX_STEPS = TRAIN_TIMESTEPS - 1


def inversion_timesteps(steps: int) -> tuple[int, ...]:
    """Timesteps `t_i = 1 + i * floor(1000 / steps)`, ascending.

    Raises:
        ValueError: `steps` is not in 1..999.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"{steps} steps were asked for; a DDIM schedule has 1 to {MAX_STEPS}.")
    spacing = TRAIN_TIMESTEPS // steps
    return tuple(1 + i * spacing for i in range(steps))


def select_timesteps(available: Sequence[int], steps: int) -> tuple[int, ...]:
    """The timesteps of a schedule of `steps` steps, which must all be among `available`; 0 takes all of them.

    Raises:
        ValueError: the schedule has a timestep that `available` lacks; the message lists what would fit.
    """
    if steps in (0, len(available)):
        return tuple(available)
    wanted = inversion_timesteps(steps)
    known = set(available)
    missing = sorted(set(wanted) - known)
    if missing:
        fitting = [n for n in range(1, len(available) + 1) if known.issuperset(inversion_timesteps(n))]
        raise ValueError(
            f"{steps} steps do not match the inversion: they need timestep {missing[0]}, and the inversion of "
            f"{len(available)} steps never stopped there. Use one of {fitting}, or 0 for the steps of the inversion."
        )
    return wanted


def alpha_of(sigma: Tensor | float) -> Tensor | float:
    """Cumulative alpha of a noise level: `1 / (1 + sigma^2)`."""
    return 1 / (1 + sigma**2)


def to_exploding(z: Tensor, sigma: Tensor | float) -> Tensor:
    """`x = z * sqrt(1 + sigma^2)`."""
    return z * (1 + sigma**2) ** 0.5


def to_preserving(x: Tensor, sigma: Tensor | float) -> Tensor:
    """`z = x / sqrt(1 + sigma^2)`."""
    return x / (1 + sigma**2) ** 0.5


def move_preserving(z: Tensor, noise: Tensor, alpha_from: float, alpha_to: float) -> Tensor:
    """One deterministic DDIM move of `z` between two alphas (paper Eq. 3), with the estimated noise epsilon."""
    clean = (z - (1 - alpha_from) ** 0.5 * noise) / alpha_from**0.5
    return alpha_to**0.5 * clean + (1 - alpha_to) ** 0.5 * noise


def move_exploding(x: Tensor, noise: Tensor, sigma_from: Tensor | float, sigma_to: Tensor | float) -> Tensor:
    """The same move in ComfyUI's space, where it is one Euler step: `x' = x + (sigma' - sigma) * epsilon`."""
    return x + (sigma_to - sigma_from) * noise


def declare_at(x: Tensor, sigma: Tensor | float, declared_sigma: Tensor | float) -> Tensor:
    """`x` at `sigma` rewritten so that a network told `declared_sigma` receives the same `z`.

    This is what "epsilon(z_t, t+1)" of the reference implementations means in ComfyUI's space: without the factor the
    network's input is off by `sqrt(alpha / alpha')`.
    """
    return x * ((1 + declared_sigma**2) / (1 + sigma**2)) ** 0.5


def renoise(z_clean: Tensor, z_noisy: Tensor, alpha_noisy: float, alpha_target: float) -> Tensor:
    """The noise that leads from `z_clean` to `z_noisy`, put on `z_clean` again at another level."""
    noise = (z_noisy - alpha_noisy**0.5 * z_clean) / (1 - alpha_noisy) ** 0.5
    return add_noise(z_clean, noise, alpha_target)


def add_noise(z_clean: Tensor, noise: Tensor, alpha: float) -> Tensor:
    """Forward diffusion: `sqrt(alpha) * z_clean + sqrt(1 - alpha) * noise`."""
    return alpha**0.5 * z_clean + (1 - alpha) ** 0.5 * noise


def first_non_finite_frame(latents: Tensor) -> int | None:
    """Index of the first frame of `[N, ...]` that holds NaN or infinity, or None."""
    bad = reduce(~torch.isfinite(latents), "n ... -> n", "any")
    return int(bad.nonzero()[0]) if bool(bad.any()) else None
