"""`make quality`: measures reconstructions and edits of rendered clips whose truth is known, and writes a report."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ... import locations
from ...host import loaded_model
from . import editors, report
from .clips import Case, held_out_cases
from .execution import do, in_processes, pending
from .plan import STUDIES, Item, Settings, items, share
from .store import Store, code_digest, file_digest

HERE = Path(__file__).parent
# Every run's numbers, so that a report can be written, or an unfinished one finished, on another machine.
EDITORS, MASKS = "editors", "masks"
RUNS = Path("quality") / "runs.jsonl"
# What results depend on, beside their settings: everything here but what only presents them.
PRESENTATION = (
    "__init__",
    "bootstrap",
    "editors",
    "editors_summary",
    "execution",
    "pictures",
    "plots",
    "quality_json",
    "report",
    "store",
    "summary",
    "tables",
)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; an empty value counts as not given, so that make can pass all of them."""
    parser = argparse.ArgumentParser(prog="make quality", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="", help="an SD1.x checkpoint; the trained small one if not given")
    parser.add_argument(
        "--classifier", default="", help="weights of the classifier that judges edits; the one beside it"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*STUDIES, EDITORS, MASKS),
        default=[*STUDIES, EDITORS, MASKS],
        help="parts to measure",
    )
    parser.add_argument("--clips", type=int, default=24, help="at most; some parts take fewer")
    parser.add_argument("--edits", type=int, default=1, choices=(1, 2, 3), help="edits of each clip")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    parser.add_argument("--report", action="store_true", help="run nothing, report what earlier runs have left")
    parser.add_argument(
        "--code", default="", help="fingerprint of the code whose results count, where a change since altered no number"
    )
    parser.add_argument("--output", type=Path, default=locations.ROOT / "docs")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def sources() -> list[Path]:
    """The code that results depend on."""
    product = (
        "stem_kernels/**/*.py",
        "nodes/methods/**/*.py",
        "nodes/metrics/closeness.py",
        "nodes/metrics/warping.py",
    )
    tools = ("tools/small_model/rendered_clips/*.py", "tools/host/loaded_model.py")
    found = [file for pattern in (*product, *tools) for file in locations.ROOT.glob(pattern)]
    return found + [file for file in HERE.glob("*.py") if file.stem not in PRESENTATION]


def settings_of(options: argparse.Namespace, checkpoint: Path, classifier: Path | None) -> Settings:
    return Settings(
        frames=options.frames,
        steps=options.steps,
        checkpoint=file_digest(checkpoint),
        classifier=file_digest(classifier) if classifier else "",
        code=options.code or code_digest(sources(), locations.ROOT),
    )


def work_of(
    options: argparse.Namespace, cases: Sequence[Case], settings: Settings, store: Store
) -> dict[str, list[Item]]:
    """The items of the studies that were asked for."""
    special = {
        EDITORS: lambda: editors.items(cases, options.seeds, settings, store.load()),
        MASKS: lambda: editors.mask_items(cases, options.seeds),
    }
    return {name: special[name]() if name in special else items(name, cases, options.seeds) for name in options.only}


def joined(studies: Mapping[str, Sequence[Item]]) -> list[Item]:
    """The items of several studies, each once."""
    return list(dict.fromkeys(item for found in studies.values() for item in found))


def run_here(work: list[Item], settings: Settings, store: Store, files: tuple[Path, Path | None], quiet: bool) -> None:
    """Loads the checkpoint and does the items in this process."""
    checkpoint, classifier = files
    loaded_model.prepare(pytorch_attention=True)
    from .runner import Runner

    classify = None
    if classifier is not None:
        from ...small_model.training.classifier import load_classifier

        classify = load_classifier(classifier)
    do(work, settings, store, Runner(loaded_model.load(checkpoint), settings, classify, store.folder / "frames"), quiet)


def main(arguments: list[str]) -> int:
    """Does what is missing and writes the report; returns the exit status."""
    options = parse(arguments)
    checkpoint = Path(options.checkpoint or locations.TRAINED).expanduser()
    classifier = Path(options.classifier).expanduser() if options.classifier else None
    if classifier is None and locations.CLASSIFIER.is_file():
        classifier = locations.CLASSIFIER
    for file in filter(None, (checkpoint, classifier)):
        if not file.is_file():
            print(f"quality stopped: there is no file {file}.")
            return 1
    settings = settings_of(options, checkpoint, classifier)
    cases = held_out_cases(options.clips, options.edits)
    folder, published = locations.from_environment().setup / "quality", options.output / RUNS
    if options.worker is not None:
        own = Store(folder, f".{options.worker}", published)
        mine = share(joined(work_of(options, cases, settings, own)), options.worker, options.workers)
        run_here(mine, settings, own, (checkpoint, classifier), quiet=True)
        return 0
    store = Store(folder, published=published)
    # What there is to do in a round of `editors` depends on the results of the round before.
    while not options.report and pending(work := joined(work_of(options, cases, settings, store)), settings, store):
        if options.workers == 1:
            run_here(work, settings, store, (checkpoint, classifier), quiet=False)
        elif status := in_processes(arguments, options.workers, work, settings, store):
            print("quality stopped: a process failed; what is done is kept, and the next run goes on from there.")
            return status
    studies = work_of(options, cases, settings, store)
    work = joined(studies)
    store.publish(item.key(settings) for item in work)
    report.write(studies, settings, store, checkpoint.name, options.output)
    print(f"written to {options.output}: quality.md, quality.json, and runs and pictures in quality/")
    return 0
