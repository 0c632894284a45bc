"""TokenFlow's keyframes, correspondences between frames, and propagation of features along them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .precision import arithmetic_dtype, tf32

KeyframeChoice = Literal["random", "centre"]
PropagationWeights = Literal["reference", "surrounding"]
# Rows of the similarity matrix that exist at a time.
BLOCK_TOKENS = 4096


@dataclass(frozen=True)
class PropagationPlan:
    """From which two keyframes each frame takes its features.

    Attributes:
        first, second: int64 [n], positions in the list of keyframes; equal where one keyframe serves alone.
        weight: float32 [n], the share of `first`; 1 where the two are equal.
        alone: whether one keyframe serves alone in every frame; known here, so that no device is asked for it.
    """

    first: Tensor
    second: Tensor
    weight: Tensor
    alone: bool

    @classmethod
    def between(cls, first: Tensor, second: Tensor, weight: Tensor) -> PropagationPlan:
        """From tensors in host memory."""
        return cls(first, second, weight, bool((first == second).all()))

    def of(self, frames: slice | Tensor) -> PropagationPlan:
        """The plan of some of the frames, where this one is in host memory."""
        return self.between(self.first[frames], self.second[frames], self.weight[frames])

    def of_read(self) -> tuple[list[int], PropagationPlan]:
        """The keyframes that are read, ascending, and the plan by positions among these, where it is in host memory."""
        keyframes, (first, second) = torch.unique(torch.stack([self.first, self.second]), return_inverse=True)
        return keyframes.tolist(), PropagationPlan(first, second, self.weight, self.alone)

    def on(self, device: torch.device) -> PropagationPlan:
        """The same on a device."""
        first, second, weight = (part.to(device, non_blocking=True) for part in (self.first, self.second, self.weight))
        return PropagationPlan(first, second, weight, self.alone)


def batch_slices(frames: int, batch_size: int) -> list[slice]:
    """All frames in batches of `batch_size`; the last one may be shorter."""
    return [slice(start, min(start + batch_size, frames)) for start in range(0, frames, batch_size)]


def choose_keyframes(batches: list[slice], choice: KeyframeChoice, generator: torch.Generator) -> Tensor:
    """One keyframe of every batch, int64 [batches]: uniformly at random, or its centre."""
    if choice == "centre":
        return torch.tensor([_centre(batch) for batch in batches])
    return torch.tensor([int(torch.randint(batch.start, batch.stop, (1,), generator=generator)) for batch in batches])


def keyframe_windows(keyframes: int, size: int) -> list[range]:
    """For each keyframe the `size` nearest ones by number, itself among them; all of them where `size` is 0."""
    size = min(size, keyframes) or keyframes
    starts = (min(max(keyframe - size // 2, 0), keyframes - size) for keyframe in range(keyframes))
    return [range(start, start + size) for start in starts]


def propagation_plan(batches: list[slice], keyframes: Tensor, weights: PropagationWeights) -> PropagationPlan:
    """How features flow from the keyframes to every frame.

    "reference" blends the keyframe of the frame's batch with that of the batch before, by the sigmoid of the relative
    distance to the centres of the two batches, as TokenFlow's code does. "surrounding" blends the nearest keyframes on
    the two sides linearly by distance; a keyframe then keeps its own features.
    """
    if weights == "surrounding":
        return _surrounding_plan(batches[-1].stop, keyframes)
    rows = []
    for number, batch in enumerate(batches):
        previous = max(number - 1, 0)
        for frame in range(batch.start, batch.stop):
            distance, previous_distance = (abs(frame - _centre(batches[b])) for b in (number, previous))
            ratio = torch.tensor(previous_distance / max(distance + previous_distance, 1))
            rows.append((number, previous, 1.0 if number == previous else float(torch.sigmoid(ratio))))
    return PropagationPlan.between(*map(torch.tensor, zip(*rows, strict=True)))


def _centre(batch: slice) -> int:
    return (batch.start + batch.stop) // 2


def _surrounding_plan(frames: int, keyframes: Tensor) -> PropagationPlan:
    frame = torch.arange(frames)
    after = torch.searchsorted(keyframes, frame)  # first keyframe at or after the frame
    before = (torch.searchsorted(keyframes, frame, right=True) - 1).clamp_min(0)
    after = after.clamp_max(len(keyframes) - 1)
    to_before, to_after = (frame - keyframes[before]).abs(), (frame - keyframes[after]).abs()
    total = (to_before + to_after).clamp_min(1)
    weight = torch.where(before == after, torch.ones(frames), to_after / total)
    return PropagationPlan.between(before, after, weight)


def nearest_tokens(tokens: Tensor, keys: Tensor, block: int = BLOCK_TOKENS) -> Tensor:
    """For each token of each frame the index of the most similar token of its keyframe, by cosine similarity.

    Args:
        tokens: [n, p, c], normalised features of the frames.
        keys: [n, q, c], features of the keyframe that belongs to each frame.
        block: tokens of a frame taken at a time.

    Returns:
        int64 [n, p]; ties go to the lowest index. The arithmetic is float32 (float64 for float64 tokens).
    """
    dtype = arithmetic_dtype(tokens)
    matches = torch.empty(tokens.shape[:2], dtype=torch.int64, device=tokens.device)
    # TF32 has the digits of both half-precision types, so products of such tokens are exact in it
    half = tokens.dtype in (torch.float16, torch.bfloat16)
    with tf32(half and tokens.is_cuda):
        for frame in range(tokens.shape[0]):
            of_keys = keys[frame].to(dtype)
            lengths = of_keys.norm(dim=-1).clamp_min(1e-12)
            across = of_keys.T if half else (of_keys / lengths[:, None]).T
            for start in range(0, tokens.shape[1], block):
                part = slice(start, start + block)
                # the length of the token itself makes no key more similar than another
                similarity = tokens[frame, part].to(dtype) @ across
                matches[frame, part] = (similarity.div_(lengths) if half else similarity).argmax(dim=-1)
    return matches


@dataclass(frozen=True)
class Correspondence:
    """Matches of a batch of frames in both of their keyframes: int64 [n, p] each (fewer bits where `compact`)."""

    first: Tensor
    second: Tensor

    def compact(self) -> Correspondence:
        """The same in as few bytes as tokens can be counted in, to be kept."""
        dtype = torch.int16 if self.first.shape[1] < 2**15 else torch.int32
        first = self.first.to(dtype)
        return Correspondence(first, first if self.second is self.first else self.second.to(dtype))

    def indices(self) -> Correspondence:
        """The same as int64 again."""
        first = self.first.long()
        return Correspondence(first, first if self.second is self.first else self.second.long())


def correspond(tokens: Tensor, key_tokens: Tensor, plan: PropagationPlan) -> Correspondence:
    """Nearest tokens of `tokens` [n, p, c] in the keyframes `key_tokens` [keyframes, p, c] that `plan` names."""
    plan = plan.on(tokens.device)
    matches = nearest_tokens(tokens, key_tokens[plan.first])
    if plan.alone:
        return Correspondence(matches, matches)
    return Correspondence(matches, nearest_tokens(tokens, key_tokens[plan.second]))


def propagate(features: Tensor, correspondence: Correspondence, plan: PropagationPlan) -> Tensor:
    """Features of the keyframes carried to the frames along the matches: [keyframes, p, c] -> [n, p, c]."""
    plan = plan.on(features.device)
    carried = features[plan.first[:, None], correspondence.first]
    if plan.alone:
        return carried
    weight = plan.weight.to(features.dtype)[:, None, None]
    return weight * carried + (1 - weight) * features[plan.second[:, None], correspondence.second]
