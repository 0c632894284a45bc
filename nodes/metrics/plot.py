"""The measures of every frame as curves, drawn without a display."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .measurements import Measure

_WIDTH, _HEIGHT, _DPI = 8.0, 2.2, 100


def curves(measures: list[Measure]) -> Tensor:
    """One small plot under the other for each measure that has values for frames: an IMAGE [1, h, w, 3].

    Raises:
        ValueError: there is nothing to plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [measure for measure in measures if measure.frames]
    if not shown:
        raise ValueError("There is no measure with values for every frame to plot.")
    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(shown)), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, measure in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        axes.plot(range(len(measure.frames)), measure.frames, marker="o", markersize=3)
        axes.axhline(measure.value, linestyle=":", linewidth=1, color="grey")
        axes.set_title(f"{measure.name}: {measure.value:.4g} {measure.unit}".strip(), fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    axes.set_xlabel("frame", fontsize=8)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).float()[None] / 255
