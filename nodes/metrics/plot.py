"""Plots, drawn without a display."""

from __future__ import annotations

from typing import Any

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
    shown = [measure for measure in measures if measure.frames]
    if not shown:
        raise ValueError("There is no measure with values for every frame to plot.")
    figure, axes_of = _figure(len(shown))
    for axes, measure in zip(axes_of, shown, strict=True):
        axes.plot(range(len(measure.frames)), measure.frames, marker="o", markersize=3)
        axes.axhline(measure.value, linestyle=":", linewidth=1, color="grey")
        axes.set_title(f"{measure.name}: {measure.value:.4g} {measure.unit}".strip(), fontsize=9, loc="left")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes_of[-1].set_xlabel("frame", fontsize=8)
    return _drawn(figure)


def bars(values: Tensor, title: str) -> Tensor:
    """Numbers [k] as bars, an IMAGE [1, h, w, 3]."""
    figure, (axes,) = _figure(1)
    axes.bar(range(len(values)), values.tolist(), width=1.0)
    axes.set_title(title, fontsize=9, loc="left")
    return _drawn(figure)


def _figure(rows: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT * rows), dpi=_DPI, layout="constrained")
    axes_of = list(figure.subplots(rows, squeeze=False)[:, 0])
    for axes in axes_of:
        axes.tick_params(labelsize=8)
    return figure, axes_of


def _drawn(figure: Any) -> Tensor:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).float()[None] / 255
