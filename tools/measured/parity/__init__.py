"""`make parity`: this project beside the recorded results of the official implementations, a line a case."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...locations import ROOT, from_environment
from .case import Case

SHIPPED = ROOT / "tests" / "data"


def main(arguments: Sequence[str]) -> int:
    """Print every case of a folder; returns 1 if any fails, or if the folder has none."""
    parser = argparse.ArgumentParser(prog="make parity", description=__doc__)
    parser.add_argument("--golden", default="", help="folder of recorded results (default: the cases that are shipped)")
    parser.add_argument("--only", default="", help="run only this group: em, ddim, stem, …")
    options = parser.parse_args(arguments)
    folder = Path(options.golden).resolve() if options.golden else SHIPPED
    if not folder.is_dir():
        print(f"{folder} is no folder. Give GOLDEN=DIR, or leave it out for the cases in tests/data.", file=sys.stderr)
        return 2
    use_host(from_environment().host)
    count = failures = 0
    for name, group in _groups(folder).items():
        if options.only not in ("", name):
            continue
        for case in group(folder):
            print(case.line(), flush=True)
            count += 1
            failures += not case.ok
    print(f"{count - failures} of {count} cases ok" + (f", {failures} FAIL" if failures else ""))
    return int(failures > 0 or count == 0)


def use_host(host: Path) -> None:
    """Make the host's modules importable, on the CPU and in float32, without starting it."""
    sys.path.insert(0, str(host))
    import torch
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
    torch.set_grad_enabled(False)


def _groups(folder: Path) -> dict[str, Callable[[Path], Iterator[Case]]]:
    """The groups of cases that a folder has data for."""
    from . import (
        ddim_cases,
        em_cases,
        fatezero_cases,
        propagation_cases,
        schedule_cases,
        stem_cases,
        text_cases,
        tokenflow_cases,
    )

    groups = {
        "schedule": schedule_cases.cases,
        "em": em_cases.cases,
        "text": text_cases.cases,
        "propagation": propagation_cases.cases,
        "ddim": ddim_cases.cases,
        "stem": stem_cases.cases,
        "tokenflow": tokenflow_cases.cases,
        "fatezero": fatezero_cases.cases,
    }
    # A folder may have the timesteps of the inversions without their latents.
    files = {"schedule": "ddim.json", "text": "text_alignment.json", "ddim": "ddim.safetensors"}
    return {name: group for name, group in groups.items() if (folder / files.get(name, f"{name}.json")).is_file()}
