"""Rows of docs/benchmarks.json: what was measured, on what, with which versions."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .timing import Measured, Workload

# What tells the rows of a machine apart.
WORKLOAD = ("group", "attention", "name", "dtype", "frames", "height", "width", "num_bases")


@dataclass(frozen=True)
class VideoSize:
    """Frames, and height and width in pixels."""

    frames: int
    height: int
    width: int


def rows_of(
    group: str, size: VideoSize, workloads: Sequence[Workload], found: dict[str, Measured], baseline: str, dtype: str
) -> list[dict]:
    """A row for every workload; ratios are to that which `baseline` names, with the least and the greatest of them."""
    rows = []
    for workload in workloads:
        measured = found[workload.name]
        ratios = measured.ratios(found[baseline])
        rows.append(
            {
                "group": group,
                "name": workload.name,
                **machine(),
                "dtype": dtype,
                **asdict(size),
                "num_bases": workload.num_bases,
                "rounds": len(ratios),
                "seconds": round(statistics.median(measured.seconds), 4),
                "baseline": baseline,
                "time_ratio": round(ratios[len(ratios) // 2], 4),
                "ratio_low": round(ratios[0], 4),
                "ratio_high": round(ratios[-1], 4),
                "peak_memory_mb": round(measured.peak / 1e6, 1),
                **workload.more,
            }
        )
    return rows


def machine() -> dict:
    """The device and the versions that a number depends on."""
    if torch.cuda.is_available():
        return {"device": torch.cuda.get_device_name(), "threads": None, "torch": torch.__version__}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = [platform.processor()]
    name = (models and models[0]) or platform.machine()
    return {"device": f"CPU ({name})", "threads": torch.get_num_threads(), "torch": torch.__version__}


class KeptRows:
    """The rows of a file, which is written again with every new one: a run that is cut off leaves what it has."""

    def __init__(self, file: Path) -> None:
        self.file, self._before = file, load(file)
        self._found: dict[tuple, dict] = {}

    def add(self, row: dict) -> None:
        """Takes a row in, in the place of what this run had of the same workload after fewer rounds."""
        self._found[tuple(row.get(name) for name in WORKLOAD)] = row
        save(merged(self._before, list(self._found.values())), self.file)


def load(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []


def merged(old: Iterable[dict], new: Sequence[dict]) -> list[dict]:
    """All rows, where a group that was measured again on the same device, with the same attention, replaces what was
    known of it."""
    again = set(map(run_of, new))
    return [*(row for row in old if run_of(row) not in again), *new]


def run_of(row: dict) -> tuple:
    """What the rows of one run of a group share."""
    return row["group"], row["device"], row.get("attention")


def save(rows: Sequence[dict], file: Path) -> None:
    """Writes the rows; a reader, or a run that is cut off, finds the old file or the new one, whole."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    new = file.with_name(f"{file.name}.new")
    new.write_text(f'{{"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    new.replace(file)
