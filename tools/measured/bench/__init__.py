"""`make bench`: what inversions and edits cost, as ratios to a baseline that is measured in the same run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ... import locations
from ...host import loaded_model
from .results import KeptRows, load

NUMBERS, PAGE = "benchmarks.json", "benchmarks.md"
GROUPS = ("em", "inversion", "batches", "fatezero", "tokenflow", "sizes")
# What only a GPU can answer: `make gpu` asks for these too.
GPU_GROUPS = ("card", "kernels", "blocks", "backends", "repeats", "synchronisations")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; what is not given depends on the device."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=[*GROUPS, *GPU_GROUPS], default=list(GROUPS), help="groups to measure"
    )
    parser.add_argument("--checkpoint", type=Path, help="an SD1.5 checkpoint; random weights of its size if not given")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run, interleaved")
    parser.add_argument("--steps", type=int, help="of the inversions")
    parser.add_argument(
        "--host-attention", action="store_true", help="the attention that ComfyUI takes by itself, not PyTorch's"
    )
    parser.add_argument("--frames", type=int, nargs="+")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page again")
    parser.add_argument("--output", type=Path, default=locations.ROOT / "docs")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measures, keeps every row as soon as it is there, and writes the page; returns the exit status."""
    options = parse(arguments)
    loaded_model.prepare(pytorch_attention=not options.host_attention)
    import torch

    from . import report
    from .groups import MEASURES, Bench

    numbers = options.output / NUMBERS
    if not options.report:
        bench = Bench(options, torch.cuda.is_available())
        with torch.inference_mode():
            for group in options.only:
                print(f"{group}:", flush=True)
                kept = KeptRows(numbers)
                for row in MEASURES[group](bench):
                    kept.add(row)
    (options.output / PAGE).write_text(report.page(load(numbers)), encoding="utf-8")
    print(f"written to {options.output}: {PAGE} and {NUMBERS}")
    return 0
