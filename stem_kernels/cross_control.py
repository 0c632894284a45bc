"""FateZero's control of cross-attention as arithmetic on values, so that no attention map has to be written out.

The map of a controlled step is `A = alpha * e * R + (1 - alpha) * A_edit`, column by column (see `prompt_alignment`).
R is `A_source M` where words are replaced, and `beta_j A_source[m(j)] + (1 - beta_j) A_edit[j]` where a prompt is
refined. Both are linear in the two maps, and so is the output:

    A V = A_source (S V) + A_edit (w * V),    S [source columns, target columns], w [target columns],

which two ordinary attentions compute, one with the source's queries and keys and one with those of the edit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .prompt_alignment import RefineAlignment

Reweighting = Literal["within_window", "all_steps"]


@dataclass(frozen=True)
class TokenMapping:
    """How attention to source tokens becomes attention to target tokens, R = A_source carried + A_edit * own.

    Attributes:
        carried: [source columns, target columns].
        own: [target columns], the share of a target token that keeps the edit's own attention.
    """

    carried: Tensor
    own: Tensor


@dataclass(frozen=True)
class CrossControl:
    """The control of one step: S and w of the module's equation.

    Attributes:
        source: [source columns, target columns], float32.
        edit: [target columns], float32.
        reads_source, reads_edit: whether the first, and the second, has a number that is not 0.
        changes_something: whether the output is not that of the edit's own attention.
    """

    source: Tensor
    edit: Tensor
    reads_source: bool
    reads_edit: bool
    changes_something: bool

    def on(self, device: torch.device | str) -> CrossControl:
        """The same on a device."""
        return replace(self, source=self.source.to(device), edit=self.edit.to(device))

    def source_values(self, values: Tensor) -> Tensor:
        """S V: values of the target tokens [..., t, c] for attention to the source tokens, [..., s, c]."""
        return self.source.to(values) @ values

    def edit_values(self, values: Tensor) -> Tensor:
        """w * V: values of the target tokens for the edit's own attention, [..., t, c]."""
        return self.edit.to(values)[:, None] * values


def refined(alignment: RefineAlignment) -> TokenMapping:
    """The mapping of an alignment: a target token reads its source token, or itself where it is new."""
    columns = len(alignment.mapper)
    carried = torch.zeros(columns, columns)
    found = alignment.aligned > 0
    carried[alignment.mapper[found], found.nonzero().flatten()] = 1
    return TokenMapping(carried, (~found).float())


def replaced(mapper: Tensor) -> TokenMapping:
    """The mapping of a replace mapper [source columns, target columns]: everything comes from the source."""
    return TokenMapping(mapper, torch.zeros(mapper.shape[1]))


def control_at(mapping: TokenMapping, alpha: Tensor, factors: Tensor, reweighting: Reweighting) -> CrossControl:
    """The control of a step.

    Args:
        alpha: [target columns], the row of the word-time table.
        factors: [target columns], the equalizer e.
        reweighting: "within_window" multiplies by e only where alpha is 1, as FateZero does; "all_steps" also the
            edit's own attention after that.
    """
    inside = alpha * factors
    outside = (1 - alpha) * (factors if reweighting == "all_steps" else 1)
    source, edit = mapping.carried * inside, inside * mapping.own + outside
    reads_source = bool(source.any())
    return CrossControl(source, edit, reads_source, bool(edit.any()), reads_source or bool((edit != 1).any()))
