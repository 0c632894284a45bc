"""`make gpu`: what only a GPU can show, most important first, within so many minutes.

Each part is a run of `make bench`'s groups in a process of its own, which writes every row at once: one that crashes,
hangs or runs out of memory takes nothing from the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import locations
from ..bench import NUMBERS
from . import summary

# A part is stopped after so many times what it should take on a card like an A100.
PATIENCE = 2
SMALL = ("--rounds", "1", "--steps", "1", "--frames", "2", "--height", "64", "--width", "64")


@dataclass(frozen=True)
class Part:
    """Groups of the benchmarks that are measured in one process.

    Attributes:
        groups: of `make bench`.
        seconds: that it takes at most on a card like an A100, with about ten to start.
        options: of `make bench`.
    """

    groups: tuple[str, ...]
    seconds: float
    options: tuple[str, ...] = ()

    def command(self, output: Path, smoke: bool) -> list[str]:
        """What runs it; in a smoke test with two small frames."""
        options = (*SMALL, "--checkpoint", str(tiny_checkpoint())) if smoke else self.options
        launch = [sys.executable, str(locations.TOOLS / "launch.py"), "measured.bench"]
        return [*launch, "--only", *self.groups, "--output", str(output), *options]


PARTS = (
    Part(("kernels",), 90),
    Part(("card", "blocks", "em"), 50),
    Part(("inversion",), 80, ("--steps", "3")),
    Part(("backends",), 45),
    Part(("batches",), 40, ("--frames", "120")),
    Part(("tokenflow",), 40),
    Part(("fatezero",), 30, ("--frames", "8", "24")),
    Part(("repeats",), 50),
    Part(("synchronisations",), 35),
)
# Groups that run Triton's kernels.
TRITON = ("kernels", "backends")


@dataclass
class Session:
    """Runs parts one after another.

    Attributes:
        output: the folder of the rows and the page.
        log: the file that takes what the parts print.
        until: when all has to be done, by `time.monotonic`.
        smoke: a rehearsal with two small frames.
        on_cpu: there is no GPU, and Triton's interpreter has to run the kernels.
    """

    output: Path
    log: Path
    until: float
    smoke: bool = False
    on_cpu: bool = False

    def run(self, part: Part) -> bool:
        """Runs a part and says how it went; False if it failed or was stopped. One that does not fit is left out."""
        name, left = ", ".join(part.groups), self.until - time.monotonic()
        if part.seconds > left and not self.smoke:
            print(f"{name}: left out, it may take {part.seconds:.0f} s and {max(left, 0):.0f} s are left", flush=True)
            return True
        started, limit = time.monotonic(), left if self.smoke else min(left, PATIENCE * part.seconds)
        before = summary.rows_here(self.output / NUMBERS)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n== {name}\n")
            log.flush()
            began = log.tell()
            try:
                command, variables = part.command(self.output, self.smoke), os.environ | {"TQDM_DISABLE": "1"}
                if self.on_cpu and part.groups[0] in TRITON:
                    variables["TRITON_INTERPRET"] = "1"
                done = subprocess.run(command, env=variables, stdout=log, stderr=subprocess.STDOUT, timeout=limit)
                ended = "" if done.returncode == 0 else f", failed (status {done.returncode})"
            except subprocess.TimeoutExpired:
                ended = ", stopped"
        rows = [row for row in summary.rows_here(self.output / NUMBERS) if row not in before]
        print(f"{name}: {time.monotonic() - started:.0f} s, {len(rows)} rows{ended}", flush=True)
        # what was left out or has failed in it, it says itself
        said = self.log.read_bytes()[began:].decode(errors="replace").splitlines()
        for line in said[-1:] if ended else [line for line in said if "left out" in line]:
            print(f"    {line[:200]}", flush=True)
        return not ended


def tiny_checkpoint() -> Path:
    """The tiny checkpoint, made if the set-up has not."""
    file = locations.from_environment().checkpoint
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        launch = [sys.executable, str(locations.TOOLS / "launch.py"), "host.tiny_checkpoint", str(file)]
        subprocess.run(launch, check=True, stdout=subprocess.DEVNULL)
    return file


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    setup = locations.from_environment().setup
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="what may not fit into them is left out")
    parser.add_argument("--smoke", action="store_true", help="all of it with two small frames, on a CPU too")
    parser.add_argument("--output", type=Path, help="folder of the rows and the page (docs; in a smoke test .setup)")
    parser.add_argument("--log", type=Path, default=setup / "gpu.log")
    options = parser.parse_args(arguments)
    options.output = options.output or (setup / "gpu-smoke" if options.smoke else locations.ROOT / "docs")
    return options


def main(arguments: list[str]) -> int:
    """Runs all parts that fit and prints a table of what they found; returns the exit status."""
    until = time.monotonic()
    options = parse(arguments)
    until += 60 * options.minutes
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu and not options.smoke:
        print(
            "PyTorch sees no NVIDIA GPU here, so there is nothing to measure. Run `make bench` for this CPU, or "
            '`make gpu ARGS="--smoke"` to rehearse all parts with two small frames.'
        )
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    options.log.write_text("", encoding="utf-8")
    session = Session(options.output, options.log, until, options.smoke, on_cpu)
    well = [session.run(part) for part in PARTS]
    print("\n".join(summary.lines(summary.rows_here(options.output / NUMBERS))))
    print(f"All rows: {options.output / NUMBERS}; what the parts printed: {options.log}")
    return 0 if all(well) else 1
