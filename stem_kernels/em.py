"""Expectation-maximisation of the bases of a video (paper Eq. 8-11).

Letters in shapes: m tokens (all pixels of all frames), k bases, c channels. Leading dimensions, such as heads, are
fitted independently. Responsibilities are kept as [m, k], the transpose of the paper's Z, so that a row sums to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .backends.choice import Backend, weighted_means
from .precision import arithmetic_dtype, least_logit, tf32
from .token_parts import Tokens, parts_of, split_like


@dataclass(frozen=True)
class EMSettings:
    """How bases are fitted.

    Attributes:
        num_bases: K of the paper.
        temperature: tau of Eq. 9.
        iterations: R, the number of E and M steps.
        normalize_bases: divide the bases by their L2 norm before Eq. 9, so that long bases do not win every token.
        norm_eps: added to that norm.
        mass_eps: the smallest mass of a base that counts, in tokens.
        empty_bases: "masked" leaves bases of less mass than `mass_eps` out of the attention; "kept" adds `mass_eps` to
            every mass instead, as the reference code does, so that an empty base becomes a token near zero.
        backend: the implementation; see `backends.choice`.
    """

    num_bases: int = 256
    temperature: float = 0.05
    iterations: int = 3
    normalize_bases: bool = True
    norm_eps: float = 1e-6
    mass_eps: float = 1e-6
    empty_bases: Literal["masked", "kept"] = "masked"
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        if self.num_bases < 1 or self.iterations < 1:
            raise ValueError(f"EM needs at least 1 base and 1 iteration; got {self.num_bases} and {self.iterations}.")
        if not self.temperature > 0:
            raise ValueError(f"EM needs a temperature above 0; got {self.temperature}.")

    def divisor(self, mass: Tensor) -> Tensor:
        """What a sum over tokens is divided by in Eq. 10: its mass, guarded against 0."""
        return mass + self.mass_eps if self.empty_bases == "kept" else mass.clamp_min(self.mass_eps)


@dataclass(frozen=True)
class Bases:
    """The result of a fit.

    Attributes:
        centres: [..., k, c], the bases mu after the last M step.
        mass: [..., k], tokens that each base answers for: the column sums of the last responsibilities.
        directions: [..., k, c], what the last E step compared the tokens with. `responsibilities` gives its result
            again, so that other features of the same tokens can be pooled without keeping m x k numbers.
        pooled: what `fit_bases` was given to pool, as `pool` would give it.
    """

    centres: Tensor
    mass: Tensor
    directions: Tensor
    pooled: tuple[Tensor, ...] = ()

    @property
    def perplexity(self) -> Tensor:
        """[...] float64: exp of the entropy of the masses, the number of evenly used bases that would be as spread."""
        share = self.mass.double() / self.mass.double().sum(dim=-1, keepdim=True)
        return (-torch.special.xlogy(share, share).sum(dim=-1)).exp()

    @property
    def log_mass(self) -> Tensor:
        """[..., k]: logarithms of the masses, finite for empty bases too."""
        return self.mass.clamp_min(torch.finfo(torch.float32).tiny).log()

    def live(self, settings: EMSettings) -> Tensor:
        """[..., k] bool: bases that the attention should see."""
        if settings.empty_bases == "kept":
            return torch.ones_like(self.mass, dtype=torch.bool)
        return self.mass > settings.mass_eps


def expectation(tokens: Tensor, directions: Tensor, temperature: float) -> Tensor:
    """E step (Eq. 9): responsibilities `softmax_k(mu_k . X_m / tau)`, [..., m, k], rows sum to 1.

    Those whose logit is hopelessly below the largest are 0 (see `least_logit`).
    """
    logits = tokens @ directions.transpose(-1, -2) / temperature
    below = logits - logits.amax(dim=-1, keepdim=True)
    return torch.softmax(below.masked_fill(below <= least_logit(below.dtype), -torch.inf), dim=-1)


def maximisation(tokens: Tensor, responsibilities: Tensor, settings: EMSettings) -> tuple[Tensor, Tensor]:
    """M step (Eq. 10): `mu_k = sum_m Z_km X_m / sum_m Z_km`; returns bases [..., k, c] and masses [..., k]."""
    mass = responsibilities.sum(dim=-2)
    return (responsibilities / settings.divisor(mass).unsqueeze(-2)).transpose(-1, -2) @ tokens, mass


def fit_bases(tokens: Tokens, initial: Tensor, settings: EMSettings, values: Sequence[Tokens] = ()) -> Bases:
    """R rounds of E and M steps (Alg. 1, lines 2-4). The backends fuse the two, so that m x k numbers never exist.

    Args:
        tokens: [..., m, c], any floating type, or parts of it along m. The arithmetic is float32, or float64 for
            float64 tokens.
        initial: [..., k, c], the bases to start from.
        settings: temperature, iterations and the rest; `num_bases` is not read, `initial` has the number.
        values: other features of the same tokens, [..., m, d] each or in the same parts, to be pooled by the last
            responsibilities.
    """
    centres = initial.to(arithmetic_dtype(parts_of(tokens)[0]))
    split = [split_like(value, tokens) for value in values]
    for left in reversed(range(settings.iterations)):
        directions = _directions(centres, settings)
        wanted = (tokens, *split) if left == 0 else (tokens,)
        mass, (centres, *pooled) = weighted_means(
            tokens, wanted, directions, settings.temperature, settings.divisor, settings.backend
        )
    return Bases(centres, mass, directions, tuple(pooled))


def responsibilities(tokens: Tensor, bases: Bases, settings: EMSettings) -> Tensor:
    """The responsibilities that made `bases`, [..., m, k], for the tokens or any part of them."""
    with tf32(False):
        return expectation(tokens.to(bases.directions.dtype), bases.directions, settings.temperature)


def pool(tokens: Tokens, values: Sequence[Tensor], bases: Bases, settings: EMSettings) -> tuple[Tensor, ...]:
    """`Pi V` with `Pi = diag(mass)^-1 Z`: each of `values` [..., m, d] averaged by the responsibilities, [..., k, d].

    Keys and values of the bases are keys and values of the pixels, pooled: the projections are linear and have no bias.
    """
    split = [split_like(value, tokens) for value in values]
    _, means = weighted_means(tokens, split, bases.directions, settings.temperature, settings.divisor, settings.backend)
    return tuple(means)


def _directions(centres: Tensor, settings: EMSettings) -> Tensor:
    if not settings.normalize_bases:
        return centres
    return centres / (centres.norm(dim=-1, keepdim=True) + settings.norm_eps)
