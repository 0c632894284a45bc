"""Which implementation serves a fit: by what it can do and where it was verified, and never by trying."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType, ModuleType
from typing import Literal

from torch import Tensor

from . import eager, triton_em

Backend = Literal["auto", "eager", "triton"]
# "auto" takes the first that can serve and was verified where it would run.
_BACKENDS = MappingProxyType({"triton": triton_em, "eager": eager})


def accumulate(
    tokens: Tensor, values: Sequence[Tensor], directions: Tensor, temperature: float, backend: Backend = "auto"
) -> tuple[Tensor, list[Tensor]]:
    """E step (Eq. 9) and the sums of the M step (Eq. 10), without m x k numbers.

    Args:
        tokens: [..., m, c], any floating type.
        values: what is summed, [..., m, d] each, with the leading dimensions of the tokens; often the tokens.
        directions: [..., k, c], the bases that tokens are compared with; float32, or float64 for float64 tokens.
        temperature: tau.
        backend: "auto", or the one to take.

    Returns:
        masses [..., k] and the sums `sum_m Z_km V_m` [..., k, d], in the type of `directions`.

    Raises:
        ValueError: the backend that was asked for cannot serve these tensors; the message says why.
    """
    flat, directions_flat = _flat(tokens), _flat(directions)
    values_flat = [flat if value is tokens else _flat(value) for value in values]
    module = chosen(flat, directions_flat, backend)
    mass, totals = module.accumulate(flat, values_flat, directions_flat, temperature)
    leading = directions.shape[:-2]
    return mass.reshape(*leading, -1), [total.reshape(*leading, *total.shape[1:]) for total in totals]


def chosen(tokens: Tensor, directions: Tensor, backend: Backend = "auto") -> ModuleType:
    """The module that serves tensors like these."""
    candidates = _BACKENDS if backend == "auto" else {backend: _BACKENDS[backend]}
    refusals = {}
    for name, module in candidates.items():
        why = module.refusal(tokens, directions)
        if why is None and (backend != "auto" or module.verified(tokens)):
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
