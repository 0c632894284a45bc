"""Which implementation serves a fit: by what it can do and where it was verified, and never by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType, ModuleType
from typing import Literal

from torch import Tensor

from ..precision import tf32
from ..token_parts import Tokens, parts_of
from . import eager, triton_em

Backend = Literal["auto", "eager", "triton"]
# "auto" takes the first that can serve and was verified where it would run.
_BACKENDS = MappingProxyType({"triton": triton_em, "eager": eager})


def weighted_means(
    tokens: Tokens,
    values: Sequence[Tokens],
    directions: Tensor,
    temperature: float,
    divisor: Callable[[Tensor], Tensor],
    backend: Backend = "auto",
) -> tuple[Tensor, list[Tensor]]:
    """E step (Eq. 9) and M step (Eq. 10), without m x k numbers.

    Args:
        tokens: [..., m, c], any floating type, or parts of it along m.
        values: what is averaged, [..., m, d] each, with the leading dimensions of the tokens; often the tokens. In the
            same parts.
        directions: [..., k, c], the bases that tokens are compared with; float32, or float64 for float64 tokens.
        temperature: tau.
        backend: "auto", or the one to take.

    Returns:
        masses `sum_m Z_km` [..., k] and the means `sum_m Z_km V_m / sum_m Z_km` [..., k, d], 0 where the mass is 0, in
        the type of `directions`.

    Raises:
        ValueError: the backend that was asked for cannot serve these tensors; the message says why.
    """
    flat_directions, leading = _flat(directions), directions.shape[:-2]
    mass, means = None, []
    for part, *of_values in zip(parts_of(tokens), *map(parts_of, values), strict=True):
        flat = _flat(part)
        flat_values = [flat if value is part else _flat(value) for value in of_values]
        module = chosen(flat, flat_directions, backend)
        # logits reach a thousand: with TF32 they would be off by one
        with tf32(False):
            found, here = module.weighted_means(flat, flat_values, flat_directions, temperature, divisor)
        if mass is None:
            mass, means = found, here
            continue
        before, mass = mass, mass + found
        kept, added = ((divisor(one) / divisor(mass)).unsqueeze(-1) for one in (before, found))
        means = [mean * kept + one * added for mean, one in zip(means, here, strict=True)]
    return mass.reshape(*leading, -1), [mean.reshape(*leading, *mean.shape[1:]) for mean in means]


def chosen(tokens: Tensor, directions: Tensor, backend: Backend = "auto") -> ModuleType:
    """The module that serves tensors like these."""
    candidates = _BACKENDS if backend == "auto" else {backend: _BACKENDS[backend]}
    refusals = {}
    for name, module in candidates.items():
        if backend == "auto" and not module.verified(tokens):
            continue
        why = module.refusal(tokens, directions)
        if why is None:
            return module
        refusals[name] = why
    reasons = "; ".join(f"{name}: {why}" for name, why in refusals.items())
    raise ValueError(
        f"No kernel can fit bases to {list(tokens.shape)} tokens of {tokens.dtype} on {tokens.device} ({reasons}). "
        "Set kernels of STEM Bases to auto."
    )


def _flat(tensor: Tensor) -> Tensor:
    """[..., m, c] -> [l, m, c]."""
    return tensor.reshape(-1, *tensor.shape[-2:])
