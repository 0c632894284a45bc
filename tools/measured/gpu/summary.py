"""A table for the terminal of what was measured on this device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..bench.results import load, machine

MOST_LINES = 40
# Of these groups, what is only compared with needs no line.
WITHOUT_BASELINE = ("em", "backends", "tokenflow", "fatezero")
# These have lines of their own.
JOINED = ("card", "kernels", "blocks")
LEFT_OUT = ("EM, written plainly", "STEM-FateZero, levels 1 to 3")
SAME = {True: "same", False: "DIFFERS", None: "did not run"}
WIDTHS = (16, 32, 6, 9, 7, 9)


def rows_here(file: Path) -> list[dict]:
    """The rows of this device."""
    device = machine()["device"]
    return [row for row in load(file) if row["device"] == device]


def lines(rows: Sequence[dict]) -> list[str]:
    """A line for each row that is worth one, and one for each type of the kernels' numbers."""
    found = [_line("group", "what", "frames", "seconds", "ratio", "memory", "")]
    found += [*_card(rows), *_kernels(rows), *_blocks(rows)]
    for row in rows:
        baseline = row["group"] in WITHOUT_BASELINE and row["name"] == row["baseline"]
        if row["group"] in JOINED or baseline or row["name"] in LEFT_OUT:
            continue
        k = f", K={row['num_bases']}" if row["group"] == "em" else ""
        measured = f"{row['seconds']:.3f}", f"{row['time_ratio']:.2f}", f"{row['peak_memory_mb']:.0f} MB"
        found.append(_line(row["group"], row["name"] + k, row["frames"], *measured, _more(row)))
    if len(found) > MOST_LINES:
        left = len(found) - MOST_LINES + 1
        found[MOST_LINES - 1 :] = [f"... and {left} more lines in the file"]
    return found


def _line(*cells: object) -> str:
    *fixed, last = map(str, cells)
    return " ".join([*(cell.ljust(width) for cell, width in zip(fixed, WIDTHS, strict=True)), last]).rstrip()


def _card(rows: Sequence[dict]) -> Iterator[str]:
    said = []
    for row in (row for row in rows if row["group"] == "card"):
        if "flops" in row:
            said.append(f"{row['dtype']} {row['flops'] / row['seconds'] / 1e12:.1f} TFLOP/s")
        elif "bytes" in row:
            said.append(f"copy {row['bytes'] / row['seconds'] / 1e9:.0f} GB/s")
        else:
            said.append(f"{row['seconds'] / row['launches'] * 1e6:.1f} µs an operation")
    if said:
        yield "card             " + ", ".join(said)


def _blocks(rows: Sequence[dict]) -> Iterator[str]:
    ours = [row for row in rows if row["group"] == "blocks" and row["name"] != row["baseline"]]
    if ours:
        ratios = ", ".join(f"{row['name'].split()[0]}: {row['time_ratio']:.2f}" for row in ours)
        yield f"blocks           EM by its products, eager, by tokens at a time: {ratios}"


def _kernels(rows: Sequence[dict]) -> Iterator[str]:
    ours = [row for row in rows if row["group"] == "kernels"]
    for dtype in dict.fromkeys(row["dtype"] for row in ours):
        of_type = [row for row in ours if row["dtype"] == dtype]
        failed = [row for row in of_type if "failed" in row]
        triton = [row for row in of_type if row not in failed and row["name"] != row["baseline"]]
        ratios = sorted(row["time_ratio"] for row in triton)
        ratio = f"{ratios[len(ratios) // 2]:.2f}" if ratios else ""
        worst = max((row["relative_error"] for row in triton), default=None)
        said = f"{len(triton)} cases, worst error {worst:.1e}" if triton else "no case ran"
        if failed:
            said += f"; {len(failed)} failed: {failed[0]['failed'][:60]}"
        yield _line("kernels", f"Triton by eager, {dtype}", ours[0]["frames"], "", ratio, "", said)


def _more(row: dict) -> str:
    """What a row of its group holds beside time and memory."""
    said = []
    if "em_share" in row:
        said.append(f"EM {row['em_share']:.0%}")
    if "flops" in row:
        said.append(
            f"{row['flops'] / row['seconds'] / 1e12:.1f} TFLOP/s, {row['bytes'] / row['seconds'] / 1e9:.0f} GB/s"
        )
    if "live_mb" in row:
        said.append(f"tensors {row['live_mb']:.0f} MB")
    if "same_again" in row:
        same = (SAME[row[kind]] for kind in ("same_again", "same_with_little_memory"))
        said.append("again: {}, with little memory: {}".format(*same))
    if "launches" in row:
        values = sum(row["needs_values"].values())
        said.append(f"{row['launches']} kernels, {row['waits']} waits, {values} values, GPU {row['gpu_seconds']:.3f} s")
    return ", ".join(said)
