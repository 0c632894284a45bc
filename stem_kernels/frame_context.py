"""Which frames a frame's self-attention reads: the spatio-temporal baselines of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

FrameReference = int | str
NAMED_FRAMES = ("first", "mid", "last")


def parse_frame_references(text: str) -> tuple[FrameReference, ...]:
    """A comma-separated list such as "0, mid" or "-1, first": offsets from the frame itself, or named frames.

    Raises:
        ValueError: an entry is neither a whole number nor first, mid or last.
    """
    references: list[FrameReference] = []
    for entry in filter(None, (part.strip().lower() for part in text.split(","))):
        if entry in NAMED_FRAMES:
            references.append(entry)
            continue
        try:
            references.append(int(entry))
        except ValueError:
            raise ValueError(
                f"{entry!r} is not a frame: write offsets such as -1, 0 or 1, or {', '.join(NAMED_FRAMES)}, "
                "separated by commas."
            ) from None
    return tuple(references)


def context_frames(references: Sequence[FrameReference], frames: int) -> Tensor:
    """For every frame the frames it reads, int64 [frames, len(references)]; offsets stop at the ends of the clip.

    No reference at all means the frame itself. `mid` is frame floor((frames - 1) / 2).
    """
    own = torch.arange(frames)
    named = {"first": 0, "mid": (frames - 1) // 2, "last": frames - 1}
    columns = [
        torch.full_like(own, named[reference])
        if isinstance(reference, str)
        # an offset may be beyond 64 bits
        else (own + max(-frames, min(frames, reference))).clamp(0, frames - 1)
        for reference in (references or (0,))
    ]
    return torch.stack(columns, dim=1)


def gather_frames(tokens: Tensor, context: Tensor, groups: int) -> Tensor:
    """Tokens of the context frames, joined: [g*n, p, c] -> [g*n, l*p, c] with `context` [n, l]."""
    grouped = rearrange(tokens, "(g n) p c -> g n p c", g=groups)
    return rearrange(grouped[:, context.to(tokens.device)], "g n l p c -> (g n) (l p) c")
