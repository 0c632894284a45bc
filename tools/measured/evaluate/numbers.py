"""What the runs have left, as numbers: means over clips with intervals, and differences edit by edit."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ....batch.jobs import Job
from ....batch.results import Results
from ..quality.bootstrap import Estimate, estimate
from .methods import BASES, CONTEXT, FRAMES, METHODS, NUM_BASES, ONE_FRAME
from .workflows import shown

GROUPS = (ONE_FRAME, CONTEXT, BASES, *METHODS)


@dataclass(frozen=True)
class Run:
    """A job that is done: its report, and the folder of its videos."""

    group: str
    job: Job
    report: dict
    folder: Path

    @property
    def edit(self) -> tuple[str, str | None, str | None]:
        """What other methods do too: the clip and the prompts."""
        return self.job.video, self.job.values.get("source"), self.job.values.get("target")

    @property
    def bases(self) -> int | None:
        return self.job.values.get(NUM_BASES)

    @property
    def frames(self) -> str | None:
        return self.job.values.get(FRAMES)

    @cached_property
    def measured(self) -> dict[str, dict]:
        """What Video Metrics says of the edit and of each reconstruction: measures, and the models that took part."""
        texts = self.report["texts"].items()
        return {title: json.loads(text[0]) for title, text in texts if title.startswith(shown(""))}

    def measure(self, what: str, name: str, field: str = "value") -> Any:
        """A measure of the edit or of a reconstruction, or its values by frame; None where there is none."""
        return self.measured.get(shown(what), {"measures": {}})["measures"].get(name, {}).get(field)

    @property
    def pace(self) -> float | None:
        """Seconds of a step of the inversion."""
        by_node = self.report["seconds_per_step"].items()
        return next((seconds for title, seconds in by_node if title.endswith("Inversion")), None)


Value = Callable[[Run], float | None]


@dataclass(frozen=True)
class Evaluation:
    """Everything that an output folder holds.

    Attributes:
        runs: those that are done.
        bases: the numbers of bases that were asked for; the first is that of the edits.
        failures: by group, of those that have failed.
        open: by group, how many are neither done nor failed.
        graphs: by group, the workflow.
        made_with: ComfyUI, code and models.
    """

    runs: list[Run]
    bases: list[int]
    failures: dict[str, list[dict]]
    open: dict[str, int]
    graphs: dict[str, dict]
    made_with: dict

    def of(self, group: str, bases: int | None = None, frames: str | None = None) -> list[Run]:
        """Of a group, those with so many bases and this context, where these are given."""
        found = [run for run in self.runs if run.group == group]
        return [run for run in found if bases in (None, run.bases) and frames in (None, run.frames)]

    def edits(self, method: str) -> list[Run]:
        """Of a method, those with the number of bases that edits are made with."""
        return [run for run in self.of(method) if run.bases in (None, *self.bases[:1])]


def read(out: Path) -> Evaluation:
    """What the groups of a folder have left, each as it was last asked for."""
    made = Evaluation([], [], {}, {}, {}, {})
    for group in GROUPS:
        results = Results(out / group)
        if not (results.folder / "jobs.jsonl").is_file():
            continue
        jobs = results.jobs()
        done = [(job, report) for job in jobs if (report := results.report(job.id)) is not None]
        made.runs.extend(Run(group, job, report, results.place(job.id)) for job, report in done)
        counts = [job.values[NUM_BASES] for job in jobs if NUM_BASES in job.values]
        made.bases.extend(count for count in dict.fromkeys(counts) if count not in made.bases)
        made.failures[group] = [failure for job in jobs if (failure := results.failure(job.id))]
        made.open[group] = len(jobs) - len(done) - len(made.failures[group])
        made.graphs[group] = results.run()["graph"]
        made.made_with.update(results.run().get("made_with", {}))
    return made


def mean(runs: Iterable[Run], value: Value) -> Estimate | None:
    """Over the clips, and within a clip over its edits; None where nothing was measured."""
    numbers = defaultdict(list)
    for run in runs:
        if (number := value(run)) is not None:
            numbers[run.job.video].append(number)
    return estimate(numbers) if numbers else None


def gain(runs: Iterable[Run], base: Iterable[Run], value: Value, base_value: Value | None = None) -> Estimate | None:
    """Of the differences to the same edits in `base`; base_value: what is taken there, if it is something else."""
    others = {run.edit: (base_value or value)(run) for run in base}

    def difference(run: Run) -> float | None:
        number, other = value(run), others.get(run.edit)
        return None if number is None or other is None else number - other

    return mean(runs, difference)


def ratio(runs: Iterable[Run], base: Iterable[Run], value: Value) -> Estimate | None:
    """Of the values to those of the same clips in `base`."""
    others = {run.job.video: value(run) for run in base}

    def share(run: Run) -> float | None:
        number, other = value(run), others.get(run.job.video)
        return number / other if number and other else None

    return mean(runs, share)


def curve(runs: Sequence[Run], what: str, name: str) -> list[float] | None:
    """The mean over the clips of every frame, as far as the shortest goes."""
    videos = {run.job.video: frames for run in runs if (frames := run.measure(what, name, "frames"))}
    return [sum(values) / len(values) for values in zip(*videos.values(), strict=False)] or None
