"""docs/benchmarks.md from the rows of docs/benchmarks.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..markdown import table
from .cells import gain, memory, paper, percent, ratio, size, slope
from .rows import measurement

# By the host's names.
ATTENTION = {"pytorch": "PyTorch's attention", "sub_quad": "the attention that the host takes by itself on a CPU"}
# What FateZero's attention needs for 8 frames of 512x512 and 50 steps: computed, and as its authors report it.
PUBLISHED_FATEZERO = "71–100 GB"

# What was expected and what came out, written by hand.
NOTES = Path(__file__).with_name("notes.md")
INTRODUCTION = """# Benchmarks

Written by `make bench` from `benchmarks.json`. Every number is a ratio to a baseline that was measured in the same run,
by turns, so that a slow moment of the machine slows both; the range after a ratio is that of the single rounds. Memory
is what was held at most beyond what was held before, with the weights already loaded. The weights are random, at the
size of SD1.5: time and memory do not depend on what they say.

Measure your own machine with `make bench` (an hour on two cores; `ARGS="--only inversion"` for a part of it). PyTorch's
attention is taken; ComfyUI takes another by itself on a processor, unless it is started with
`--use-pytorch-cross-attention`, and `ARGS="--host-attention"` measures with that.
"""


@dataclass(frozen=True)
class Section:
    """What one machine measured of a group.

    Attributes:
        title: of the group.
        row: any of the rows.
        measured: the table and what it shows.
        explanation: of the results, the same for all machines.
    """

    title: str
    row: dict
    measured: str
    explanation: str

    @property
    def machine(self) -> str:
        row = self.row
        threads = f", {row['threads']} thread(s)" if row["threads"] else ""
        attention = f", {ATTENTION.get(row['attention'], row['attention'])}" if row.get("attention") else ""
        of = f"{row['device']}{threads}, {row['dtype']}, PyTorch {row['torch']}{attention}"
        return f"Measured on: {of}, {row['rounds']} round(s)."


def page(rows: Sequence[dict]) -> str:
    """The whole page; groups without rows are left out."""
    sections = []
    for group, write in SECTIONS.items():
        of_group = [row for row in rows if row["group"] == group]
        written = [
            write([row for row in of_group if measurement(row) == one])
            for one in dict.fromkeys(map(measurement, of_group))
        ]
        if written:
            tables = [f"{one.measured}\n\n{one.machine}" for one in written]
            sections.append("\n\n".join([f"## {written[0].title}", *tables, written[0].explanation]) + "\n")
    return INTRODUCTION + "\n" + "\n".join([*sections, NOTES.read_text(encoding="utf-8")])


def _inversion(rows: list[dict]) -> Section:
    lines = table(
        ("inversion", "time", "in the paper", "peak memory", "share of EM"),
        [(row["name"], ratio(row), paper(row), memory(row), percent(row.get("em_share"))) for row in rows],
    )
    return Section(
        "Inversion",
        rows[0],
        f"""\
{size(rows[0])}, {rows[0]["steps"]} step(s). Time as a ratio to {rows[0]["baseline"]}, beside the same ratio from the
paper's Table 1 (48 frames, 50 steps, on a GPU).

{lines}""",
        """\
STEM is faster than plain inversion, because its queries meet K keys where plain attention has thousands. The keys of
the bases are shared by all frames, so the queries of the whole clip are one sequence, and only K rows are projected to
keys and values instead of every pixel of every frame.""",
    )


def _em(rows: list[dict]) -> Section:
    names = [name for name in dict.fromkeys(row["name"] for row in rows) if name != rows[0]["baseline"]]
    cells = {(row["name"], row["num_bases"]): row for row in rows}
    sizes = sorted({row["num_bases"] for row in rows})
    lines = table(
        ("K", "products", "bytes it must move", *(f"{name}: time, memory" for name in names)),
        [
            (
                str(k),
                f"{cells[names[0], k]['flops'] / 1e9:.0f} GFLOP",
                f"{cells[names[0], k]['bytes'] / 1e9:.2f} GB",
                *(f"{ratio(cells[name, k])}, {memory(cells[name, k])}" for name in names),
            )
            for k in sizes
        ],
    )
    return Section(
        "Expectation-maximisation alone",
        rows[0],
        f"""\
All sixteen layers of a step, {size(rows[0])}. Time by its floor: the time of the two matrix products of each
iteration by torch.matmul, with nothing between them.

{lines}""",
        """\
Where the time goes when EM is written plainly: with the bases nearly hard, most responsibilities are so small that
float32 holds them as subnormal numbers, and an Intel processor takes tens of times longer to multiply those (AMD's does
not mind). Here a responsibility below e^-75 of the largest counts as 0, which is far below any rounding error; then
softmax and sums add little to the products. Responsibilities exist for one block of tokens at a time.""",
    )


def _sizes(rows: list[dict]) -> Section:
    lengths = sorted({row["frames"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))
    cells = {(row["name"], row["frames"]): row for row in rows}

    def cell(row: dict) -> str:
        bases = "" if row["mean_bases"] is None else f", {row['mean_bases']:.0f} bases"
        return f"{gain(row)} dB, {row['time_ratio']:.2f}{bases}"

    lines = table(
        ("", *(f"{n} frames" for n in lengths)),
        [(name, *(cell(cells[name, n]) for n in lengths)) for name in names],
    )
    return Section(
        "A number of bases for every layer, and warm starts",
        rows[0],
        f"""\
The trained small model and rendered clips of {rows[0]["width"]}×{rows[0]["height"]} pixels (3 of 8 frames, 2 of 48, 1
of 120), {rows[0]["steps"]} steps: PSNR of the reconstruction beside that with {rows[0]["baseline"]} (mean over the
clips, and the range), time of the inversion as a ratio to the same, and the mean number of bases over layers and steps.
Coarse layers of short clips have fewer tokens than bases were asked for; then every token is a base.

{lines}""",
        """\
How a layer chooses (`explained_energy`): it fits 16, 32, 64, … bases to a sample of its tokens, at most 3,072 of them,
and takes the first number that explains the wanted share of how other tokens of the sample vary. The choice depends on
the tokens alone, so a step that is run again, as FateZero does, finds it again. A warm start (`warm_start`) begins a
step with the bases of the step before; FateZero cannot follow it.""",
    )


def _batches(rows: list[dict]) -> Section:
    sizes = sorted({row["frames"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))
    cells = {(row["name"], row["frames"]): row for row in rows}
    slopes = {name: slope([(n, cells[name, n]["live_mb"]) for n in sizes]) for name in names}
    # of half-precision numbers in 512x512 pixels
    scale = 512 * 512 / (rows[0]["height"] * rows[0]["width"]) * (0.5 if rows[0]["dtype"] == "float32" else 1)
    lines = table(
        ("frames_per_batch", *(f"{n} frames" for n in sizes), "more for each frame", "in half precision, 512×512"),
        [
            (
                name,
                *(f"{cells[name, n]['live_mb']:.0f} MB, {cells[name, n]['time_ratio']:.2f}" for n in sizes),
                f"{slopes[name]:.1f} MB",
                f"{scale * slopes[name]:.1f} MB",
            )
            for name in names
        ],
    )
    return Section(
        "Whole-video bases in bounded memory",
        rows[0],
        f"""\
One inversion step of {rows[0]["height"]}×{rows[0]["width"]} pixels with K=256: the most bytes that tensors hold at once
beside the weights (counted at every operation, so that the allocator plays no part), and time as a ratio to all frames
at once. The batches go through the network in lockstep and meet where the bases are fitted, so the result is that of
all frames at once, whatever their size.

{lines}""",
        """\
What grows with the clip is what has to outlive a layer in every frame: the features that wait for the decoder, and the
current ones. Everything else is that of a batch. The last column only scales: bytes are proportional to pixels and to
the size of a number.""",
    )


def _fatezero(rows: list[dict]) -> Section:
    plain = next(row for row in rows if row["name"] == row["baseline"])
    lines = table(
        ("one step of", "peak memory", "beyond plain sampling", "time"),
        [
            (
                row["name"],
                memory(row),
                "" if row is plain else f"{(row['peak_memory_mb'] - plain['peak_memory_mb']) / 1e3:+.2f} GB",
                f"{row['time_ratio']:.2f}",
            )
            for row in rows
        ],
    )
    return Section(
        "FateZero without an attention bank",
        rows[0],
        f"""\
{size(rows[0])}. FateZero as published keeps the attention of the whole inversion: {PUBLISHED_FATEZERO} for a clip of
this size and 50 steps. Here the evaluation that made it is run again at each step of the edit, and its queries and keys
are kept for that one step.

{lines}""",
        f"""\
These are the numbers of every step; what is kept from step to step is the trajectory alone,
{rows[0]["frames"] * 51 * rows[0]["height"] * rows[0]["width"] / 64 * 16 / 1e6:.0f} MB for 50 steps. In time the
source's evaluation comes on top: a third of all rows.""",
    )


def _tokenflow(rows: list[dict]) -> Section:
    own = [row for row in rows if row["name"] != row["baseline"]]
    base = {row["frames"]: row for row in rows if row["name"] == row["baseline"]}
    lines = table(
        ("frames", "seconds a step", f"by {rows[0]['baseline']}", "peak memory", "of that baseline"),
        [
            (
                str(row["frames"]),
                f"{row['seconds']:.1f}",
                f"{row['time_ratio']:.2f}",
                memory(row),
                memory(base[row["frames"]]),
            )
            for row in own
        ],
    )
    return Section(
        "TokenFlow",
        rows[0],
        f"""\
One edit step of {rows[0]["height"]}×{rows[0]["width"]} pixels with the defaults (a keyframe in every 8 frames), beside
plug-and-play on every frame alone, which has no attention between frames.

{lines}""",
        """\
Keyframes attend to each other in one attention call per prompt. The frames between them take no attention at all: they
copy it from the keyframes along the nearest neighbours of their tokens. What the pass over the keyframes has computed
is not computed again with their batches.""",
    )


SECTIONS: dict[str, Callable[[list[dict]], Section]] = {
    "inversion": _inversion,
    "em": _em,
    "batches": _batches,
    "fatezero": _fatezero,
    "tokenflow": _tokenflow,
    "sizes": _sizes,
}
