"""How far a result is from what it should be; for `make parity` and for the tests."""

from __future__ import annotations

from torch import Tensor


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """`||ours - expected|| / ||expected||` in float64; absolute where `expected` is 0, infinite where shapes differ."""
    if ours.shape != expected.shape:
        return float("inf")
    ours, expected = ours.double(), expected.double()
    return float((ours - expected).norm() / (expected.norm() or 1))
