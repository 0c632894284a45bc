"""`make parity`: this project beside the recorded results of the official implementations, a line a case."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...locations import ROOT, from_environment
from .comparison import Comparison

SHIPPED = ROOT / "tests" / "data"


def main(arguments: Sequence[str]) -> int:
    """Print every comparison with a folder; returns 1 if any fails, or if the folder has none."""
    parser = argparse.ArgumentParser(prog="make parity", description=__doc__)
    parser.add_argument("--golden", default="", help="folder of recorded results (default: the cases that are shipped)")
    parser.add_argument("--only", default="", help="run only this group: em, ddim, stem, …")
    options = parser.parse_args(arguments)
    folder = Path(options.golden).resolve() if options.golden else SHIPPED
    if not folder.is_dir():
        print(
            f"{folder} is not a folder. Give GOLDEN=DIR, or leave it out for the cases in tests/data.", file=sys.stderr
        )
        return 2
    use_host(from_environment().host)
    count = failures = 0
    for name, comparisons in _groups(folder).items():
        if options.only not in ("", name):
            continue
        for comparison in comparisons(folder):
            print(comparison.line(), flush=True)
            count += 1
            failures += not comparison.ok
    print(f"{count - failures} of {count} cases ok" + (f", {failures} FAIL" if failures else ""))
    return int(failures > 0 or count == 0)


def use_host(host: Path) -> None:
    """Make ComfyUI's modules importable, on the CPU and in float32, without starting it."""
    sys.path.insert(0, str(host))
    import torch
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
    torch.set_grad_enabled(False)


def _groups(folder: Path) -> dict[str, Callable[[Path], Iterator[Comparison]]]:
    """The groups of comparisons that a folder has data for."""
    from . import ddim, em, fatezero, propagation, schedule, stem, text, tokenflow

    # Each with the file that it needs: a folder may have the timesteps of the inversions without their latents.
    groups = {
        "schedule": (schedule.comparisons, "ddim.json"),
        "em": (em.comparisons, "em.json"),
        "text": (text.comparisons, "text_alignment.json"),
        "propagation": (propagation.comparisons, "propagation.json"),
        "ddim": (ddim.comparisons, "ddim.safetensors"),
        "stem": (stem.comparisons, "stem.json"),
        "tokenflow": (tokenflow.comparisons, "tokenflow.json"),
        "fatezero": (fatezero.comparisons, "fatezero.json"),
    }
    return {name: comparisons for name, (comparisons, file) in groups.items() if (folder / file).is_file()}
