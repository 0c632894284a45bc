"""How steady a film is where the pieces of a shot meet, beside the rest of that shot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...nodes.metrics.optical_flow import dis, estimate
from ...nodes.metrics.warping import warp_error
from ...nodes.video.resizing import Framing, fit_picture
from .division import Piece
from .joining import faded
from .source import Film, pictures


def seam_errors(film: Film, pieces: Sequence[Piece], files: Sequence[Path], framing: Framing) -> dict[str, float]:
    """Warp error x 1000 of a shot of several pieces: the mean over pairs of frames where two pieces fade into each
    other (`seam`), and over all others (`inside`). framing: how the film's pictures were brought to the edit's size.

    The motion is that of the source (DIS).
    """
    start, end = pieces[0].start, pieces[-1].end
    shared = {number for before, after in pairwise(pieces) for number in range(after.start - 1, before.end)}
    errors: dict[str, list[float]] = {"seam": [], "inside": []}
    last: tuple[NDArray, NDArray] | None = None
    for number, (source, edited) in enumerate(
        zip(pictures(film.file, start, end), faded(pieces, files), strict=True), start
    ):
        height, width = edited.shape[:2]
        pair = (fit_picture(source, film.pixel_aspect, (width, height), framing), edited)
        if last is not None:
            sources, results = (torch.from_numpy(np.stack(both)).float() / 255 for both in zip(last, pair, strict=True))
            flow = estimate(sources, dis, "DIS")
            error = warp_error(results, flow.backward, flow.seen).seen
            if np.isfinite(error):
                errors["seam" if number - 1 in shared else "inside"].append(error)
        last = pair
    return {place: float(np.mean(found)) for place, found in errors.items() if found}
