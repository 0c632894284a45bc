"""How many bases a layer needs: the smallest number that explains enough of tokens which the fit has not seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .em import EMSettings, fit_bases, responsibilities
from .precision import arithmetic_dtype
from .random_streams import distinct_numbers
from .token_parts import Tokens, count_of, tokens_at

SMALLEST = 16
# Tokens looked at, drawn from the whole clip: every third is kept from the fit and tests it.
SAMPLED_TOKENS = 3072


def smallest_size(tokens: Tokens, target: float, settings: EMSettings, initial: Callable[[Tensor, int], Tensor]) -> int:
    """The smallest of 16, 32, 64, … bases with which EM explains `target` of the energy, else `settings.num_bases`.

    Each size is fitted to a sample of the tokens and tested on others, because bases always explain the tokens that
    they were fitted to better. The result depends on the tokens alone, so a step that is run again finds it again.

    Args:
        tokens: [..., m, c], or parts of it along m.
        target: share of the energy, 0 to 1; see `explained_energy`.
        settings: of the fit; `num_bases` is the most that is taken.
        initial: (tokens, k) -> bases to start from, [..., k, c].
    """
    sample = tokens_at(tokens, _drawn(count_of(tokens)))
    sample = sample.to(arithmetic_dtype(sample))
    tested = sample[..., 2::3, :]
    if tested.shape[-2] == 0:
        return settings.num_bases
    fitted = sample[..., torch.arange(sample.shape[-2], device=sample.device) % 3 != 2, :]
    size = SMALLEST
    while size < min(settings.num_bases, fitted.shape[-2]):
        bases = fit_bases(fitted, initial(fitted, size), settings)
        estimate = responsibilities(tested, bases, settings) @ bases.centres
        if explained_energy(tested, estimate, fitted.mean(dim=-2, keepdim=True)) >= target:
            return size
        size *= 2
    return settings.num_bases


def _drawn(count: int) -> Tensor:
    """Which of `count` tokens are looked at, in random order; the same ones for the same count."""
    return distinct_numbers(min(SAMPLED_TOKENS, count), count, torch.Generator().manual_seed(count))


def explained_energy(tokens: Tensor, estimate: Tensor, mean: Tensor) -> float:
    """`1 - |X - estimate|^2 / |X - mean|^2` over all tokens [..., m, c]; 1 where they do not vary at all."""
    varied = float((tokens - mean).square().sum())
    return 1.0 if varied == 0 else 1.0 - float((tokens - estimate).square().sum()) / varied
