"""docs/faults.md from the rows of docs/faults.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...measured.markdown import one_line, table
from .graphs import SAMPLERS
from .inside import ELSEWHERE, FAILED, NOT_REACHED, REFUSED, WENT_ON

INTRODUCTION = """# Faults

Written by `make faults` from `faults.json`. What happens when something goes wrong in the middle of a run: somebody
stops it, another node breaks, memory or the disk runs out, the host is killed? Every fault was caused in a real ComfyUI
that was driven over HTTP, on a CPU, with the shipped workflows at a small size (3 frames, 3 steps, the tiny
checkpoint). A node of a test pack (`tools/robustness/fault_nodes`) puts patches, wrappers and callbacks on the MODEL,
as other people's nodes do, and one of them fails at a chosen call, once. Calls are counted in the whole workflow, so "1
of 2" may be the inversion's, of an inversion and a reconstruction.

Each fault is followed by a good run. By turns that is the *same* MODEL again, as the host keeps it in its cache, and
the same workflow with the fault switched off. "Equal" says that all pixels were those of an undisturbed run, bit by
bit. "Kept" is what the host held beyond what it held before, once the good run was over: large tensors, and coroutines
(batches of frames run as such) that had not ended. No file stayed behind in the folders for results and temporary
files, except where a table says so. Inputs that are odd or broken to begin with are in
[faults_inputs.md](faults_inputs.md).
"""
BESIDE = """## Beside a run

The VAE and the queue are the host's; what counts is that results of this pack come out of them unharmed. When its
estimate says that memory is short, the host computes conditionings one after the other, and STEM Bases takes fewer
frames at a time; the result is then the same but for rounding (PSNR in dB between 8-bit pictures, 99 for equal ones).
"""
KILLED = """## The host killed while an inversion is being saved

SIGKILL while a large inversion was being written, then a new host on the same folders. Load Inversion must not offer
what was left, and must refuse it when it is asked for by name. The left-over lies in a hidden folder; a later save
removes it when it is a day old.
"""
DISK = """## Disk full

On file systems of a few megabytes that were filled up for one run. Afterwards the same was done with room.
"""
MANY = """## Runs of many clips

Whole runs of [many clips](batch.md). Machines are network namespaces that a cable joins, each with a Ray of its own;
where no ComfyUI is named, workers without one take its place. "All clips whole" says that the run ended as it should,
or where it had to stop, the same command after it: every clip was there, whole, and done once, nothing was left of
others, and what had been done before was not touched again. Edits by real ComfyUIs were bit by bit those of an
undisturbed one. What is noticed within seconds, such as a worker or a raylet that is killed, is tried by `make test`.
"""
# Rounding moves few pixels of a picture, and by one of 255 levels: 60 dB is one in sixteen.
CLOSE_DB = 60.0


def is_right(row: Mapping) -> bool:
    """Whether a row shows what it should: what happened was told, good runs were good, and nothing is left."""
    told = all(row["told"]) if row["outcome"] in (FAILED, REFUSED) else row["outcome"] != ELSEWHERE
    ours = "the host's" not in row["sampler"] and row["fault"] != "host killed"
    kept = row.get("bytes_kept", 0) <= 0 and row.get("coroutines_kept", 0) <= 0
    left = row.get("half_files_offered") or (ours and row.get("files_left"))
    return told and all(row["equal"]) and kept and not left and row.get("psnr", CLOSE_DB) >= CLOSE_DB


def page(parts: Mapping[str, Sequence[Mapping]]) -> str:
    """The whole page; parts without rows are left out."""
    rows = [row for found in parts.values() for row in found]
    right = sum(is_right(row) for row in rows)
    missing = [sampler.name for sampler in SAMPLERS if sampler.name not in parts]
    sections = [
        f"{right} of the {len(rows)} rows below are as they should be."
        + (f" Not measured yet: {'; '.join(missing)}." if missing else "")
        + "\n"
    ]
    sections += [_inside(sampler.name, parts[sampler.name]) for sampler in SAMPLERS if sampler.name in parts]
    for name, introduction, listed in (
        ("beside", BESIDE, _beside),
        ("killed", KILLED, _killed),
        ("disk", DISK, _disk),
        ("batch", MANY, _many),
    ):
        if name in parts:
            sections.append(f"{introduction}\n{listed(parts[name])}\n")
    return INTRODUCTION + "\n" + "\n".join(sections)


def _inside(name: str, rows: Sequence[Mapping]) -> str:
    lines = [
        (
            row["fault"],
            f"`{row['place']}`",
            _calls(row),
            _told(row),
            _equal(row),
            f"{row['bytes_kept'] / 1e6:.1f} MB, {row['coroutines_kept']}",
        )
        for row in rows
    ]
    memory = [row["megabytes"] for row in rows]
    found = table(("fault", "where", "at call", "what the user is told", "equal afterwards", "kept"), lines)
    return f"""## {name}

{found}

Resident memory of the host went from {memory[0]:.0f} to {memory[-1]:.0f} MB over these {len(rows)} faults and the good
runs between them.
"""


def _beside(rows: Sequence[Mapping]) -> str:
    lines = [
        (
            row["fault"],
            row["sampler"],
            row["place"],
            _told(row),
            f"{row['psnr']} dB" if "psnr" in row else "",
            _equal(row),
        )
        for row in rows
    ]
    return table(
        ("fault", "where", "how", "what the user is told", "what the host went on with", "equal afterwards"), lines
    )


def _killed(rows: Sequence[Mapping]) -> str:
    lines = [
        (
            row["place"],
            ", ".join(f"`{name}`" for name in row["files_left"]),
            ", ".join(row["half_files_offered"]) or "no",
            _told(row),
            _equal(row),
        )
        for row in rows
    ]
    return table(("killed with", "left", "offered", "when it is asked for", "equal afterwards"), lines)


def _disk(rows: Sequence[Mapping]) -> str:
    lines = [
        (row["place"], row["sampler"], _told(row), ", ".join(row.get("files_left", ())) or "nothing", _equal(row))
        for row in rows
    ]
    return table(("what did not fit", "where", "what the user is told", "left", "equal afterwards"), lines)


def _many(rows: Sequence[Mapping]) -> str:
    lines = [
        (
            row["fault"],
            row["place"],
            f"{row['noticed']:.0f} s" if "noticed" in row else "",
            _told(row),
            str(row.get("again", "")),
            _equal(row),
        )
        for row in rows
    ]
    return table(
        ("what happens", "how", "noticed after", "what the user is told", "clips run again", "all clips whole"), lines
    )


def _calls(row: Mapping) -> str:
    return f"{', '.join(map(str, row['calls']))} of {row['of']}" if row["calls"] else ""


def _equal(row: Mapping) -> str:
    if not row["equal"]:
        return ""
    return f"{'yes' if all(row['equal']) else '**no**'} ({sum(row['equal'])} of {len(row['equal'])})"


def _told(row: Mapping) -> str:
    """The first message, for a table."""
    if row["outcome"] in (NOT_REACHED, "skipped"):
        return "; ".join(filter(None, (row["outcome"], *row["told"])))
    said = next(filter(None, row["told"]), None)
    if row["outcome"] == WENT_ON and said is None:
        return "nothing: the host goes on"
    return ("refused before the run: " if row["outcome"] == REFUSED else "") + one_line(said or "**nothing**")
