"""Which frames go through the network in which pass of a TokenFlow step; nothing is computed twice.

The source of a keyframe has been computed with the keyframes. So has its edit, where its features come from itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ....stem_kernels.correspondence import PropagationPlan


@dataclass(frozen=True)
class KeyRow:
    """Where a batch's keyframe belongs among its frames, and its number among the keyframes that these read."""

    position: int
    number: int

    def put(self, rows: Tensor, of_keyframes: Tensor) -> Tensor:
        """Rows of the other frames [n - 1, ...] and of the keyframes [keyframes, ...] -> rows [n, ...]."""
        key = of_keyframes[self.number : self.number + 1]
        return torch.cat([rows[: self.position], key, rows[self.position :]])


@dataclass(frozen=True)
class BatchPasses:
    """The passes of one batch of frames.

    Attributes:
        source, edit: int64, the frames whose source and whose edit are computed.
        keyframes: numbers of the keyframes that the frames of `edit` read.
        plan: from where they take their features, by positions in `keyframes`.
        key: the keyframe, where it is among `edit` but not among `source`.
        reused: frame and number of the keyframe whose edit is that of the pass over the keyframes, or None.
        number: of the batch.
    """

    source: Tensor
    edit: Tensor
    keyframes: list[int]
    plan: PropagationPlan
    key: KeyRow | None = None
    reused: tuple[int, int] | None = None
    number: int = 0

    @property
    def frames(self) -> int:
        """How many there are in the batch."""
        return len(self.edit) + (self.reused is not None)


def batch_passes(batches: list[slice], keyframes: Tensor, plan: PropagationPlan, reuse: bool) -> list[BatchPasses]:
    """The passes of every batch; without `reuse` all frames of a batch are in both of its passes."""
    found = []
    for number, batch in enumerate(batches):
        source = edit = torch.arange(batch.start, batch.stop)
        keyframe, key, reused = int(keyframes[number]), None, None
        if reuse:
            source = edit[edit != keyframe]
            if int(plan.first[keyframe]) == int(plan.second[keyframe]) == number:
                edit, reused = source, (keyframe, number)
        read, of_read = plan.of(edit).of_read()
        if len(source) < len(edit):
            key = KeyRow(keyframe - batch.start, read.index(number))
        found.append(BatchPasses(source, edit, read, of_read, key, reused, number))
    return found
