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
    """Where a batch's keyframe belongs among its frames, and its number among the keyframes."""

    position: int
    number: int

    def put(self, rows: Tensor, of_keyframes: Tensor) -> Tensor:
        """Rows of the other frames [n - 1, ...] and of all keyframes [keyframes, ...] -> rows [n, ...]."""
        key = of_keyframes[self.number : self.number + 1]
        return torch.cat([rows[: self.position], key, rows[self.position :]])


@dataclass(frozen=True)
class BatchPasses:
    """The passes of one batch of frames.

    Attributes:
        source, edit: int64, the frames whose source and whose edit are computed.
        plan: from where the frames of `edit` take their features.
        key: the keyframe, where it is among `edit` but not among `source`.
        reused: frame and number of the keyframe whose edit is that of the pass over the keyframes, or None.
    """

    source: Tensor
    edit: Tensor
    plan: PropagationPlan
    key: KeyRow | None = None
    reused: tuple[int, int] | None = None


def batch_passes(batches: list[slice], keyframes: Tensor, plan: PropagationPlan, reuse: bool) -> list[BatchPasses]:
    """The passes of every batch; without `reuse` all frames of a batch are in both of its passes."""
    found = []
    for number, batch in enumerate(batches):
        frames = torch.arange(batch.start, batch.stop)
        if not reuse:
            found.append(BatchPasses(frames, frames, plan.of(frames)))
            continue
        keyframe = int(keyframes[number])
        others = frames[frames != keyframe]
        if int(plan.first[keyframe]) == int(plan.second[keyframe]) == number:
            found.append(BatchPasses(others, others, plan.of(others), reused=(keyframe, number)))
        else:
            key = KeyRow(keyframe - batch.start, number)
            found.append(BatchPasses(others, frames, plan.of(frames), key))
    return found
