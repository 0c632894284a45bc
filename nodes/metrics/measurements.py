"""The measures of an edited video beside its source, as numbers, as a table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from torch import Tensor

from .clip_scores import frame_accuracy, prompt_similarity, temporal_consistency
from .closeness import psnr, ssim
from .frames import Advance, unwatched
from .optical_flow import OpticalFlow
from .warping import warp_error


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: for the table.
        value: over the whole video; NaN where nothing could be measured.
        unit: "dB" or "".
        better: "higher", "lower" or "" where it depends.
        frames: its values for each frame, or for each pair of frames (one fewer), where there are any.
        explanation: a line for the table.
    """

    name: str
    value: float
    unit: str = ""
    better: str = "higher"
    frames: tuple[float, ...] = ()
    explanation: str = ""


@dataclass
class Report:
    """Measures by key, and the names of what took part in them (flow, models)."""

    measures: dict[str, Measure] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        """A line for each measure, in columns."""
        rows = [
            (m.name, f"{m.value:.4g} {m.unit}".rstrip(), m.better and f"{m.better} is better", m.explanation)
            for m in self.measures.values()
        ]
        names, values, better, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [f"{a:{names}}  {b:>{values}}  {c:{better}}  {d}".rstrip() for a, b, c, d in rows]
        return "\n".join([*lines, *(f"{what}: {name}" for what, name in self.models.items())])

    def json(self) -> str:
        """The same with the values of every frame; what could not be measured is null."""

        def number(value: float) -> float | None:
            return value if math.isfinite(value) else None

        measures = {
            key: {"value": number(m.value), "unit": m.unit, "better": m.better, "frames": [*map(number, m.frames)]}
            for key, m in self.measures.items()
        }
        return json.dumps({"measures": measures, "models": self.models}, indent=1)


def add_closeness(report: Report, source: Tensor, edited: Tensor, advance: Advance = unwatched) -> None:
    """PSNR and SSIM of two videos [n, h, w, 3] of the same size; advances by 2 n frames."""
    explanation = "closeness to the source: for a reconstruction, how good it is; for an edit, how much is kept"
    for key, of, unit in (("psnr", psnr, "dB"), ("ssim", ssim, "")):
        values = of(edited, source, advance)
        report.measures[key] = _mean(key.upper(), values, explanation, unit=unit, better="")


def add_steadiness(
    report: Report, source: Tensor, edited: Tensor, flow: OpticalFlow, advance: Advance = unwatched
) -> None:
    """Warp errors of the edit along the flow of the source, and those of the source itself to compare with; advances by
    2 (n - 1) pairs of frames."""
    report.models["flow"] = flow.name
    seen = f"pixels that both frames show, {100 * float(flow.seen.double().mean()):.0f} %"
    for key, whose, video in (("", "of the edit", edited), ("source_", "of the source", source)):
        error, name = warp_error(video, flow.backward, flow.seen, advance), f"warp error {whose}, x1000"
        pairs = tuple(error.pairs.tolist())
        report.measures[f"{key}warp_error"] = Measure(name, error.seen, "", "lower", pairs, seen)
        report.measures[f"{key}warp_error_all"] = Measure(f"{name}, all pixels", error.all, "", "lower")


def add_embeddings(
    report: Report, frames: Tensor, names: dict[str, str], target: Tensor | None = None, source: Tensor | None = None
) -> None:
    """CLIP measures of the edited frames' embeddings [n, d], and those of the prompts [d] that there are."""
    report.models |= names
    if len(frames) > 1:
        report.measures["temporal_consistency"] = _mean(
            "CLIP temporal consistency", temporal_consistency(frames), "similarity of consecutive frames"
        )
    if target is not None:
        scores = prompt_similarity(frames, target)
        report.measures["clip_score"] = _mean("CLIP score", scores, "similarity to the target prompt")
    if target is not None and source is not None:
        report.measures["frame_accuracy"] = Measure(
            "CLIP frame accuracy",
            frame_accuracy(frames, source, target),
            explanation="share of frames that are closer to the target prompt than to the source prompt",
        )


def _mean(name: str, values: Tensor, explanation: str, **more: str) -> Measure:
    """A measure that is the mean of its values for frames."""
    return Measure(name, float(values.mean()), frames=tuple(values.tolist()), explanation=explanation, **more)
