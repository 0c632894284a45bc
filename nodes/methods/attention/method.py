"""What this pack may do at the self-attention layers of a MODEL: the contract of its methods."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..seams.layer_map import AttentionLayer
from .attention_map import AttentionMap

# Where the layers find what their method remembers: a key of the transformer options.
RUN = "stem_inversion_run"


class SelfAttentionMethod:
    """What to do at every self-attention layer. Methods are immutable: ComfyUI shares them between clones.

    By default a method remembers nothing, projects queries, keys and values from the layer's own tokens, computes all
    frames at once, leaves cross-attention alone and cannot be replayed.

    Attributes:
        name: of the node, for messages.
        frames_per_batch: how many frames go through the network at a time; 0 for as many as memory allows, None for
            all, always.
        decided: whether that number was decided for a run: it is kept, but gives way where memory is short.
        waiting_rows: how many rows of the network are held for every frame that waits for others.
        replay_obstacle: why a step of an inversion with this method cannot be run again alone, in words that complete
            "the INVERSION was made with"; empty where it can, and `recorded` and `attend_pixels` are there.
    """

    name: str
    frames_per_batch: int | None = None
    decided: bool = False
    waiting_rows: float = 1

    @property
    def replay_obstacle(self) -> str:
        return (
            f"{self.name}, whose attention cannot be recomputed. Invert with STEM Bases, with Frame Context or with "
            "the bare MODEL."
        )

    def start_run(self, model: Any, timestep: int | None = None) -> Any:
        """What the method remembers during one run of MODEL; the layers find it as `extra_options[RUN]`.

        timestep: that of all calls, where it is known, so that no device is asked for it.
        """

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor] | None:
        """What queries and keys/values are projected from, given the normalised tokens [rows, p, c]; None where none of
        them is read."""
        return tokens, tokens

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        """The attention output before the output projection, [rows, p, c]."""
        raise NotImplementedError

    def controls(self, layer: AttentionLayer) -> bool:
        """Whether the cross-attention of a layer is the method's too."""
        return False

    def attend_cross(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        """The cross-attention output before the output projection, [rows, p, c]; k and v are [rows, tokens, c]."""
        raise NotImplementedError

    def frames_that_meet(self, frames: int) -> int:
        """How many consecutive frames of a clip need each other, and so wait for each other in every layer."""
        return frames

    def of_batch(self, run: Any) -> Any:
        """What the method remembers during one batch of one call of the network, given what it does during the run."""
        return run

    def recorded(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> tuple[Tensor, list[AttentionMap]]:
        """The output of `attend` for one cond, and the attention of every part of the frames that computed it."""
        raise NotImplementedError

    def attend_pixels(
        self, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, timestep: int, extra_options: dict
    ) -> Tensor:
        """The output where tokens, keys and values are those of the pixels, [rows, p, c] each; no run is read."""
        raise NotImplementedError


def check_replayable(method: SelfAttentionMethod | None, purpose: str) -> None:
    """Raise unless a step of an inversion with `method` can be run again without the steps before it."""
    if method is not None and method.replay_obstacle:
        raise ValueError(f"{purpose}: the INVERSION was made with {method.replay_obstacle}")
