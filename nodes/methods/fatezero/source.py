"""What the source leaves for the edit of the same frames: kept until it is read, or handed over layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from ..attention.attention_map import AttentionMap
from ..batching.lockstep import Meet
from ..seams.layer_map import AttentionLayer

Kind = Literal["self", "cross"]
Size = tuple[int, int]


@dataclass(frozen=True)
class SelfAttention:
    """Self-attention of one layer: of every part of the frames in their order; height and width of the features."""

    maps: Sequence[AttentionMap]
    size: Size

    @property
    def in_host_memory(self) -> SelfAttention:
        return replace(self, maps=[part.in_host_memory for part in self.maps])


@dataclass(frozen=True)
class CrossAttention:
    """Cross-attention of one layer: queries [n, p, c], keys [n, tokens, c]; height and width of the features."""

    queries: Tensor
    keys: Tensor
    size: Size

    @property
    def in_host_memory(self) -> CrossAttention:
        return replace(self, queries=self.queries.cpu(), keys=self.keys.cpu())


@dataclass
class SourceBefore:
    """The source of some frames, whose layers run before those of their edit: what it leaves is kept until it has been
    read, on its device or in host memory.

    readers: of each kind, how many conds of the edit read it.
    """

    readers: Mapping[Kind, int]
    in_host_memory: bool = False
    kept: dict[tuple[Kind, int], tuple[Any, int]] = field(default_factory=dict)

    def give(self, kind: Kind, layer: AttentionLayer, found: SelfAttention | CrossAttention) -> None:
        if self.readers[kind]:
            kept = found.in_host_memory if self.in_host_memory else found
            self.kept[kind, layer.index] = kept, self.readers[kind]

    def take(self, kind: Kind, layer: AttentionLayer) -> Any:
        found, left = self.kept.pop((kind, layer.index))
        if left > 1:
            self.kept[kind, layer.index] = found, left - 1
        return found


@dataclass(frozen=True)
class SourceBeside:
    """The source of some frames, run in lockstep with their edit: nothing is kept beyond its layer.

    meets: of each kind, how the calls that read it meet the source, which is their last member.
    """

    meets: Mapping[Kind, Meet]

    def give(self, kind: Kind, layer: AttentionLayer, found: SelfAttention | CrossAttention) -> None:
        self.meets[kind]((layer, found), _of_the_source)

    def take(self, kind: Kind, layer: AttentionLayer) -> Any:
        return self.meets[kind]((layer, None), _of_the_source)


def _of_the_source(arrived: list[tuple[AttentionLayer, Any]]) -> Any:
    *readers, (layer, found) = arrived
    if any(reader != layer for reader, _ in readers):
        raise RuntimeError(
            f"FateZero Edit: the source is at layer {layer.name} and the edit at {readers[0][0].name}; another node "
            "skips parts of the network on one of the two MODELs. Use it on both or on neither."
        )
    return found
