"""What `make gpu` should find, before it has run: operations over rates, bytes over bandwidth, launches times 5 µs.

`python tools/launch.py measured.gpu.predictions` prints the tables that stand in docs/benchmarks.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ....stem_kernels.backends.triton_em import CHUNK_TOKENS
from ....stem_kernels.em import EMSettings
from ...host import loaded_model
from ..bench import em
from ..bench.results import VideoSize
from ..markdown import table
from .counting import WORDS, Counts, attention_flops, of_network

LAUNCH = 5e-6
ITERATIONS = EMSettings().iterations
TABLE_1 = VideoSize(48, 360, 640)
SQUARE = (512, 512)
# Of one block of the eager backend: how often its logits are read or written, and what is launched.
PASSES, LAUNCHES_OF_BLOCK = 11, 12
# In TF32 with the rounding errors made up for: three products for one.
TF32_PRODUCTS = 3
# As counted on a CPU (see *whole-video bases*), in half precision at 512x512: bytes of each frame that is computed, and
# of each that waits.
COMPUTED, WAITING = 69.6e6, 22.4e6
# Correspondences, in float32: every token of a frame with those of two keyframes, at the levels of the network.
KEYFRAMES_SEEN = 2


@dataclass(frozen=True)
class Card:
    """Rates that are taken as reachable: a share of the data sheet's, in operations and bytes a second.

    products: of convolutions and linear layers in half precision; attention: PyTorch's flash attention with heads of 40
    channels, which it pads to 64; float32: large products; tf32: of Triton's kernels.
    """

    name: str
    products: float
    attention: float
    float32: float
    tf32: float
    bandwidth: float


CARDS = (
    Card("A100", 170e12, 120e12, 16e12, 60e12, 1.6e12),
    Card("H100", 450e12, 190e12, 45e12, 120e12, 2.7e12),
    Card("H200", 450e12, 190e12, 45e12, 120e12, 4.1e12),
)


@dataclass(frozen=True)
class Step:
    """One evaluation of all frames, by its parts."""

    video: VideoSize

    @cached_property
    def counts(self) -> Counts:
        return of_network(self.video.frames, self.video.height, self.video.width)

    @cached_property
    def layers(self) -> list[tuple[int, int]]:
        return em.layer_shapes(self.video)

    def self_attention(self, share: float = 1, keys: int | None = None) -> float:
        """Operations where each token meets so many times the tokens of its frame, or so many keys."""
        per_frame = ((tokens, channels, tokens / self.video.frames) for tokens, channels in self.layers)
        return sum(attention_flops(tokens, keys or share * own, channels) for tokens, channels, own in per_frame)

    def seconds(self, card: Card, self_attention: float, saved_products: float = 0) -> float:
        cross = sum(attention_flops(tokens, WORDS, channels) for tokens, channels in self.layers)
        attention, products = (self_attention + cross) / card.attention, self.counts.products - saved_products
        work = products / card.products + attention + self.counts.moved / card.bandwidth
        return max(work, self.counts.launches * LAUNCH)

    def with_bases(self, card: Card, k: int, fit: float) -> float:
        """With bases that a step spends `fit` seconds on: keys and values are those of K rows."""
        saved = sum(2 * 2 * tokens * channels**2 for tokens, channels in self.layers)
        return self.seconds(card, self.self_attention(keys=k), saved) + fit

    def floor(self, card: Card, k: int) -> float:
        """The matrix products of EM in half precision."""
        bytes_moved = sum(em.moved(*layer, k, 2, ITERATIONS) for layer in self.layers)
        return max(self._fit_flops(k) / card.products, bytes_moved / card.bandwidth)

    def eager_fit(self, card: Card, k: int, block: int) -> float:
        logits = 4 * k * sum(tokens for tokens, _ in self.layers) * ITERATIONS
        blocks = sum(math.ceil(tokens / block) for tokens, _ in self.layers) * ITERATIONS
        work = self._fit_flops(k) / card.float32 + PASSES * logits / card.bandwidth
        return max(work, blocks * LAUNCHES_OF_BLOCK * LAUNCH)

    def triton_fit(self, card: Card, k: int) -> float:
        logits = 4 * k * sum(tokens for tokens, _ in self.layers) * ITERATIONS
        chunks = sum(math.ceil(tokens / CHUNK_TOKENS) for tokens, _ in self.layers) * ITERATIONS
        work = TF32_PRODUCTS * self._fit_flops(k) / card.tf32 + 2 * logits / card.bandwidth
        return max(work, chunks * LAUNCHES_OF_BLOCK * LAUNCH)

    def correspondences(self, card: Card) -> float:
        per_frame = ((tokens, channels, tokens / self.video.frames) for tokens, channels in self.layers)
        flops = sum(2 * KEYFRAMES_SEEN * tokens * own * channels for tokens, channels, own in per_frame)
        return flops / card.float32

    def _fit_flops(self, k: int) -> int:
        return sum(em.flops(*layer, k, ITERATIONS) for layer in self.layers)


def inversions(step: Step, card: Card) -> dict[str, float]:
    """Seconds of a step, by the names of the rows."""
    found = {
        "DDIM, 1 frame": step.seconds(card, step.self_attention()),
        "DDIM, 2 frames": step.seconds(card, step.self_attention(2)),
        "DDIM, all frames": step.seconds(card, step.self_attention(step.video.frames)),
    }
    for block in (2048, 65536):
        for k in em.NUM_BASES:
            found[f"STEM, K={k}, eager, blocks of {block}"] = step.with_bases(card, k, step.eager_fit(card, k, block))
    for k in em.NUM_BASES:
        found[f"STEM, K={k}, Triton"] = step.with_bases(card, k, step.triton_fit(card, k))
    return found | {"K=256, were EM free": step.with_bases(card, 256, 0)}


def rows() -> Iterator[tuple[str, ...]]:
    """Of the table: what, and for each card what is expected."""
    step = Step(TABLE_1)
    of_cards = [inversions(step, card) for card in CARDS]
    for name in of_cards[0]:
        first = [found["DDIM, 1 frame"] for found in of_cards]
        ratios = (f"{found[name] / one:.2f}" for found, one in zip(of_cards, first, strict=True))
        yield name, *(ratios if name != "DDIM, 1 frame" else (f"1.00 ({one * 1e3:.0f} ms)" for one in first))
    for k in em.NUM_BASES:
        floors = [step.floor(card, k) for card in CARDS]
        yield f"EM's matrix products, K={k}", *(f"{one * 1e3:.1f} ms" for one in floors)
        for block in (2048, 65536):
            fits = [step.eager_fit(card, k, block) for card in CARDS]
            by_floor = (f"{fit / one:.0f}" for fit, one in zip(fits, floors, strict=True))
            yield f"EM by them, K={k}, eager, blocks of {block}", *by_floor
        fits = [step.triton_fit(card, k) for card in CARDS]
        yield f"EM by them, K={k}, Triton", *(f"{fit / one:.0f}" for fit, one in zip(fits, floors, strict=True))
    clip = Step(VideoSize(120, *SQUARE))
    seconds = [clip.with_bases(card, 256, clip.eager_fit(card, 256, 65536)) for card in CARDS]
    yield "120 frames of 512×512, K=256, eager", *(f"{one:.2f} s" for one in seconds)
    in_eights = 8 * COMPUTED + (clip.video.frames - 8) * WAITING
    for how, held in (("all at once", clip.video.frames * COMPUTED), ("8 at a time", in_eights)):
        yield f"memory beside the weights, {how}", *(f"{held / 1e9:.1f} GB" for _ in CARDS)
    for frames in (8, 16, 32):
        edited = Step(VideoSize(frames, *SQUARE))
        seconds = [3 * edited.seconds(card, edited.self_attention()) + edited.correspondences(card) for card in CARDS]
        yield f"TokenFlow, {frames} frames of 512×512", *(f"{one:.2f} s" for one in seconds)
    for frames in (8, 24):
        edited = Step(VideoSize(frames, *SQUARE))
        seconds = [3 * edited.seconds(card, edited.self_attention()) for card in CARDS]
        yield f"FateZero, {frames} frames of 512×512, fused attention aside", *(f"{one:.2f} s" for one in seconds)


def page() -> str:
    """The table, with what it takes as given."""
    rates = [
        (card.name, *(f"{rate / 1e12:.0f}" for rate in (card.products, card.attention, card.float32, card.tf32)))
        + (f"{card.bandwidth / 1e12:.1f}",)
        for card in CARDS
    ]
    counts = Step(VideoSize(1, TABLE_1.height, TABLE_1.width)).counts
    counted = (
        f"Counted on the network itself, for a frame of 640×360: {counts.products / 1e9:.0f} GFLOP in convolutions and "
        f"linear layers, {counts.attention / 1e9:.0f} GFLOP in attention, {counts.moved / 1e9:.1f} GB read and written "
        f"by everything else in half precision, {counts.launches} kernels a call."
    )
    head = ("rates taken", "convolutions, TFLOP/s", "attention", "float32", "TF32 in Triton", "TB/s")
    return "\n\n".join([counted, table(head, rates), table(("a step", *(card.name for card in CARDS)), rows())])


def main(arguments: list[str]) -> int:
    loaded_model.prepare(pytorch_attention=True)
    print(page())
    return 0
