"""`make faults`: faults in a real host, what the user is told, and whether the next run is as if nothing had been."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ... import locations
from ...host.temporary import temporary_host
from ..host_under_test import HostUnderTest
from . import beside, inside
from .full_disk import full_disks
from .graphs import SAMPLERS, Sampler
from .killed import killed
from .many_clips import many_clips
from .report import is_right, page

JSON = locations.ROOT / "docs" / "faults.json"


@contextmanager
def running_host() -> Iterator[HostUnderTest]:
    """A host in folders of its own."""
    with temporary_host("faults", locations.TEST_PACKS) as started:
        yield HostUnderTest(started)


def inside_a_run(sampler: Sampler) -> Iterator[dict]:
    """Faults inside runs of a sampler."""
    with running_host() as host:
        yield from inside.tried(host, sampler, inside.plans(sampler))


def beside_a_run() -> Iterator[dict]:
    """Faults beside the run of a sampler."""
    with running_host() as host:
        for part in (beside.decoder_out_of_memory, beside.short_of_memory, beside.queued_together):
            yield from part(host)


# What can be measured by itself.
PARTS = {
    **{sampler.name: partial(inside_a_run, sampler) for sampler in SAMPLERS},
    "beside": beside_a_run,
    "killed": killed,
    "disk": full_disks,
    "batch": many_clips,
}


def main(arguments: list[str]) -> int:
    """Runs, writes docs/faults.json and docs/faults.md; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part again, keep the others")
    parser.add_argument("--output", type=Path, default=JSON)
    options = parser.parse_args(arguments)
    found = json.loads(options.output.read_text(encoding="utf-8")) if options.only and options.output.exists() else {}
    for part in options.only or PARTS:
        found[part] = list(tqdm(PARTS[part](), part, unit="fault"))
        ordered = {name: found[name] for name in PARTS if name in found}
        # whose folders they were is nobody's business
        text = json.dumps(ordered, indent=1, ensure_ascii=False)
        text = re.sub(re.escape(tempfile.gettempdir()) + r"/stem-faults-[^/\s\"]*", "…", text)
        options.output.write_text(text + "\n", encoding="utf-8")
        options.output.with_suffix(".md").write_text(page(json.loads(text)), encoding="utf-8")
    return 0 if all(is_right(row) for rows in found.values() for row in rows) else 1
