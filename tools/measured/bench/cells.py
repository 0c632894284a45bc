"""What stands in the cells of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence

# Table 1 of the paper: minutes for 48 frames of 640x360 and 50 steps on one A100, as ratios to its 1-frame DDIM.
PAPER = {
    "DDIM, 1 frame": 1.0,
    "DDIM, 2 frames": 1.4,
    "DDIM, all frames": 6.3,
    "STEM, K=128": 1.275,
    "STEM, K=256": 1.875,
    "STEM, K=512": 2.825,
}


def size(row: dict) -> str:
    return f"{row['frames']} frames of {row['width']}×{row['height']} pixels"


def ratio(row: dict) -> str:
    if row["name"] == row["baseline"] or row["rounds"] == 1:
        return f"{row['time_ratio']:.2f}"
    return f"{row['time_ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"


def paper(row: dict) -> str:
    return f"{PAPER[row['name']]:.2f}" if row["name"] in PAPER else ""


def gain(row: dict) -> str:
    if row["name"] == row["baseline"]:
        return f"{row['psnr']:.2f}"
    return f"{row['psnr_gain']:+.2f} [{row['psnr_gain_low']:+.2f}, {row['psnr_gain_high']:+.2f}]"


def memory(row: dict) -> str:
    mb = row["peak_memory_mb"]
    return f"{mb / 1e3:.2f} GB" if mb >= 1e3 else f"{mb:.0f} MB"


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through the first and the last point."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    return (y1 - y0) / (x1 - x0) if x1 != x0 else float("nan")
