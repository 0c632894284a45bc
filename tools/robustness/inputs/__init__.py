"""`make inputs`: odd and broken clips, names, files, prompts and sizes, through a real host; docs/faults_inputs.json.

The same cases are tests: tests/tools/robustness/test_inputs.py runs those that are quick.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ... import locations
from ...host.temporary import temporary_host
from ...measured.markdown import one_line, table
from ..host_under_test import HostUnderTest
from .edit_cases import EDITS
from .file_cases import FILES
from .odd_input import OddInput, Outcome, outcome_of

FILE = locations.ROOT / "docs" / "faults_inputs.json"
CASES: tuple[OddInput, ...] = (*FILES, *EDITS)
INTRODUCTION = """# Odd and broken inputs

Written by `make inputs` from `faults_inputs.json`: what happens to clips, names, files, prompts, sizes and settings
that are odd, broken or meant to do harm, sent to a real ComfyUI over HTTP. Each refusal is followed by a run that
should succeed, whose pixels have to be those of an undisturbed one. Faults in the middle of a run are in
[faults.md](faults.md).
"""
# By case and nodes.
Rows = dict[tuple[str, str], dict[str, str]]


def row(case: OddInput, outcome: Outcome, undisturbed: bool) -> dict[str, str]:
    """A line of the table."""
    if not case.holds(outcome):
        said = "NOT AS EXPECTED"
    elif outcome.pictures is None:
        said = "refused; the next run is as before" if undisturbed else "refused; THE NEXT RUN DIFFERS"
    else:
        frames, height, width = outcome.pictures.shape[:3]
        said = f"works: {frames} frame{'s' if frames > 1 else ''} of {width}×{height}"
    return {"case": case.name, "through": case.through, "outcome": said, "message": outcome.message}


def page(rows: Sequence[dict[str, str]]) -> str:
    """The table to read."""
    lines = [(line["case"], line["through"], line["outcome"], one_line(line["message"])) for line in rows]
    return f"{INTRODUCTION}\n{table(('case', 'through', 'outcome', 'what the user is told'), lines)}\n"


def run(host: HostUnderTest, cases: Sequence[OddInput], rows: Rows, file: Path) -> Rows:
    """`rows` with the outcomes of these cases, written after each of them; a good run follows each refusal."""
    good = {build: outcome_of(host, build).pictures for build in dict.fromkeys(case.good for case in cases)}
    for case in tqdm(cases, unit="case"):
        outcome = outcome_of(host, case.build)
        same = outcome.pictures is not None or np.array_equal(outcome_of(host, case.good).pictures, good[case.good])
        rows = rows | {(case.name, case.through): row(case, outcome, same)}
        listed = [rows[known.name, known.through] for known in CASES if (known.name, known.through) in rows]
        file.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        file.with_suffix(".md").write_text(page(listed), encoding="utf-8")
    return rows


def main(arguments: list[str]) -> int:
    """Runs all cases and writes their outcomes; returns the exit status, 1 when one is not as expected."""
    parser = argparse.ArgumentParser(prog="make inputs", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--only", default="", help="a regular expression: cases and nodes; others keep their outcomes")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if re.search(options.only, f"{case.name}, {case.through}")]
    rows = {}
    if options.only and options.output.is_file():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        rows = {(line["case"], line["through"]): line for line in before}
    with temporary_host("inputs") as started:
        rows = run(HostUnderTest(started), chosen, rows, options.output)
    wrong = [line for line in rows.values() if line["outcome"].isupper() or "DIFFERS" in line["outcome"]]
    print(json.dumps(wrong, indent=1, ensure_ascii=False) if wrong else f"{len(rows)} cases, all as expected")
    return bool(wrong)
