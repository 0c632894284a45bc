"""`make soak`: many runs in one host process: does its memory grow, do files stay behind, do runs get slower?"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from scipy.stats import linregress, t
from tqdm import trange

from ...batch.comfyui.process import HostProcess
from .. import locations
from ..demo import CLIP
from ..demo.workflow import STEM_FATEZERO, TOKENFLOW, Choices, Wish, fill_in, load, node_titled
from ..host.temporary import temporary_host
from ..shipped.workflows import FOLDER as WORKFLOWS
from .batch_runs import load as batch_load

FILE = locations.ROOT / "docs" / "soak.json"
# In turn, in batches of frames, so that everything that keeps state is run.
WISHES = (Wish(workflow=TOKENFLOW), Wish(workflow=STEM_FATEZERO))
SETTINGS = {
    "Video Load": {"width": 96, "height": 56, "frame_cap": 5},
    "STEM Bases": {"num_bases": 32, "frames_per_batch": 2},
    "STEM Inversion": {"steps": 4},
}
WARM_UP = 10


@dataclass(frozen=True)
class Slope:
    """Of a line through numbers of successive runs, for each run, with the ends of its 95 % interval."""

    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """After one run: seconds it took, resident megabytes of the host, and its files outside input and output."""

    seconds: float
    megabytes: float
    files: int


def slope_of(values: list[float]) -> Slope:
    """The least-squares slope, and its interval by Student's t."""
    line = linregress(range(len(values)), values)
    margin = t.ppf(0.975, len(values) - 2) * line.stderr
    return Slope(line.slope, line.slope - margin, line.slope + margin)


def prompt_of(client, wish: Wish, seed: int, clip: str) -> dict:
    """A shipped workflow at a small size; the seed of the bases makes everything after them new."""
    choices = Choices(CLIP, locations.from_environment().checkpoint)
    prompt = fill_in(load(WORKFLOWS / "api" / f"{wish.workflow.name}.json"), choices, wish, clip)
    for title, values in SETTINGS.items():
        prompt[node_titled(prompt, title)]["inputs"].update(values)
    prompt[node_titled(prompt, "STEM Bases")]["inputs"]["seed"] = seed
    return prompt


def soaked(host: HostProcess, runs: int) -> list[Run]:
    """Runs the workflows in turn."""
    clip, found = host.client.upload(CLIP), []
    process = psutil.Process(host.process.pid)
    for number in trange(runs, unit="run"):
        started = time.monotonic()
        host.client.run(prompt_of(host.client, WISHES[number % len(WISHES)], number, clip), timeout=600)
        kept = [file for file in host.base.rglob("*") if file.is_file() and not {"input", "output"} & set(file.parts)]
        found.append(Run(time.monotonic() - started, process.memory_info().rss / 1e6, len(kept)))
    return found


def summary(runs: list[Run]) -> dict:
    """Slopes after the warm-up, and what they are slopes of."""
    settled = runs[min(WARM_UP, len(runs) // 2) :]
    return {
        "runs": len(runs),
        "warm_up": len(runs) - len(settled),
        "megabytes": round(statistics.median(run.megabytes for run in settled), 1),
        "megabytes_per_run": asdict(slope_of([run.megabytes for run in settled])),
        "seconds": round(statistics.median(run.seconds for run in settled), 3),
        "seconds_per_run": asdict(slope_of([run.seconds for run in settled])),
        "files_after_first_and_last": [settled[0].files, settled[-1].files],
        "each": [[round(run.seconds, 3), round(run.megabytes, 1), run.files] for run in runs],
    }


def main(arguments: list[str]) -> int:
    """Runs, writes docs/soak.json; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--batch", action="store_true", help="the engine for many clips instead: docs/scale.json")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    if options.batch:
        return batch_load.main()
    with temporary_host("soak") as host:
        found = summary(soaked(host, options.runs))
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "each"}, indent=1))
    return 0
