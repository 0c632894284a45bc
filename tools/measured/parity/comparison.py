"""One line of the parity run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import relative_error


@dataclass(frozen=True)
class Comparison:
    """One recorded case beside ours.

    Attributes:
        name: what was compared.
        error: relative L2 difference, or the share of entries that differ.
        tolerance: the largest error that passes.
    """

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        # Written this way round so that NaN fails.
        return self.error <= self.tolerance

    def line(self) -> str:
        return f"{self.name:<58} {self.error:9.2e}  limit {self.tolerance:7.1e}  {'ok' if self.ok else 'FAIL'}"


def compared(name: str, ours: Tensor, recorded: Tensor, tolerance: float) -> Comparison:
    """By their relative error."""
    return Comparison(name, relative_error(ours, recorded), tolerance)


def share_that_differs(ours: Tensor, recorded: Tensor) -> float:
    """Share of entries that are not equal."""
    return float((ours != recorded.to(ours.dtype)).double().mean())


def measured_limit(sensitivity: float | None, rule: float, most: float) -> float:
    """The rule, or ten times the reference's own float32-float64 difference where that is more, up to `most`."""
    return rule if sensitivity is None else min(most, max(rule, 10 * sensitivity))
