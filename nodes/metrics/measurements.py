"""The measures of an edited video beside its source, as numbers, as a table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from torch import Tensor

from .closeness import psnr, ssim
from .embedding_scores import frame_accuracy, prompt_similarity, temporal_consistency
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
            (m.name, f"{m.value:.4g}{' ' + m.unit if m.unit else ''}", m.better and f"{m.better} is better")
            for m in self.measures.values()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2]), m.explanation]
            ).rstrip()
            for row, m in zip(rows, self.measures.values(), strict=True)
        ]
        return "\n".join([*lines, *(f"{what}: {name}" for what, name in self.models.items())])

    def json(self) -> str:
        """The same with the values of every frame; what could not be measured is null."""

        def number(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return json.dumps(
            {
                "measures": {
                    key: {
                        "value": number(m.value),
                        "unit": m.unit,
                        "better": m.better,
                        "frames": [number(value) for value in m.frames],
                    }
                    for key, m in self.measures.items()
                },
                "models": self.models,
            },
            indent=1,
        )


def add_closeness(report: Report, source: Tensor, edited: Tensor) -> None:
    """PSNR and SSIM of two videos [n, h, w, 3] of the same size."""
    for key, of, unit in (("psnr", psnr, "dB"), ("ssim", ssim, "")):
        values = of(edited, source)
        explanation = "closeness to the source: of a reconstruction, how good it is; of an edit, how much is kept"
        better = ""
        report.measures[key] = Measure(key.upper(), float(values.mean()), unit, better, _floats(values), explanation)


def add_steadiness(report: Report, source: Tensor, edited: Tensor, flow: OpticalFlow) -> None:
    """Warp errors of the edit along the flow of the source, and those of the source itself to compare with."""
    report.models["flow"] = flow.name
    for key, whose, video in (("", "of the edit", edited), ("source_", "of the source", source)):
        error = warp_error(video, flow.backward, flow.seen)
        report.measures[f"{key}warp_error"] = Measure(
            f"warp error {whose}, x1000",
            error.seen,
            "",
            "lower",
            _floats(error.pairs),
            f"pixels that both frames show, {100 * float(flow.seen.double().mean()):.0f} %",
        )
        report.measures[f"{key}warp_error_all"] = Measure(
            f"warp error {whose}, x1000, all pixels", error.all, "", "lower"
        )


def add_embeddings(
    report: Report, frames: Tensor, names: dict[str, str], target: Tensor | None = None, source: Tensor | None = None
) -> None:
    """CLIP measures of the edited frames' embeddings [n, d], and those of the prompts [d] that there are."""
    report.models |= names
    consistency = temporal_consistency(frames)
    if len(consistency):
        report.measures["temporal_consistency"] = Measure(
            "CLIP temporal consistency",
            float(consistency.mean()),
            "",
            "higher",
            _floats(consistency),
            "likeness of consecutive frames",
        )
    if target is not None:
        scores = prompt_similarity(frames, target)
        report.measures["clip_score"] = Measure(
            "CLIP score", float(scores.mean()), "", "higher", _floats(scores), "likeness to the target prompt"
        )
    if target is not None and source is not None:
        report.measures["frame_accuracy"] = Measure(
            "CLIP frame accuracy",
            frame_accuracy(frames, source, target),
            "",
            "higher",
            explanation="share of frames that are closer to the target prompt than to the source prompt",
        )


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
