"""Markdown tables of the page, with the paper's own numbers beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from .. import markdown
from ..quality.bootstrap import Estimate
from .methods import BASES, CONTEXT, CONTEXTS, METHODS, ONE_FRAME
from .numbers import Evaluation, Run, Value, gain, mean, ratio
from .workflows import EDIT, FUSED, OWN, PLAIN, VAE

# Minutes for 48 frames of 640x360 in 50 steps on an A100 (the paper's Table 1).
PAPER_MINUTES = {ONE_FRAME: 0.80, "2-frames": 1.12, "all-frames": 5.04, 128: 1.02, 256: 1.50, 512: 2.26}
# CLIP score and warp error x 1000 (the paper's Table 2).
PAPER_EDITS = {
    "ddim-fatezero": ("0.29", "7.2"),
    "stem-fatezero": ("0.30", "4.3"),
    "ddim-tokenflow": ("0.31", "4.9"),
    "stem-tokenflow": ("0.31", "3.5"),
}
# What stands where the denoiser is named.
DENOISERS = {PLAIN: "the model's own attention", OWN: "that of the inversion", FUSED: "fused with the source's"}
NOTHING = "–"
# Measures of a reconstruction, with their digits.
CLOSENESS = {"psnr": 2, "ssim": 4}


def cell(found: Estimate | None, digits: int, sign: str = "", times: float = 1) -> str:
    """A mean with its interval."""
    if found is None:
        return NOTHING
    mean_, low, high = (f"{times * number:{sign}.{digits}f}" for number in (found.mean, found.low, found.high))
    return mean_ if low == high == mean_ else f"{mean_} [{low}, {high}]"


def _filled(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which there is nothing."""
    kept = [number for number in range(len(head)) if any(line[number] != NOTHING for line in lines)]
    head, *lines = ([line[number] for number in kept] for line in (head, *lines))
    return markdown.table(head, lines, numbers=True)


def inversions(made: Evaluation, steps: int) -> str:
    """Table 1; "" where nothing was timed. steps: of an inversion."""
    base, pace = made.of(ONE_FRAME), attrgetter("pace")
    rows = [("DDIM, 1 frame", base, ONE_FRAME)]
    rows += [
        (f"DDIM, {name.replace('-', ' ')}", made.of(CONTEXT, frames=frames), name) for name, frames in CONTEXTS.items()
    ]
    rows += [(f"STEM, K = {count}", made.of(BASES, count), count) for count in sorted(made.bases)]
    lines = []
    for name, runs, key in rows:
        if runs:
            paper = f"{PAPER_MINUTES[key] / PAPER_MINUTES[ONE_FRAME]:.2f}" if key in PAPER_MINUTES else NOTHING
            line = [name, cell(mean(runs, pace), 1, times=steps), cell(ratio(runs, base, pace), 2), paper]
            line.append(cell(mean(runs, lambda run: run.report["peak_memory_mb"]), 0))
            line.append(cell(mean(runs, lambda run: run.report.get("device_memory_mb")), 0))
            lines.append(line)
    head = ["inversion", "seconds", "by DDIM, 1 frame", "the paper", "process, MB", "GPU, MB"]
    return _filled(head, lines) if lines else ""


def _edit_columns(words: Value | None) -> dict[str, tuple[Value, int, float]]:
    """Of Table 2: the measure, its digits, and what it is multiplied by."""
    columns = {
        "CLIP score": (lambda run: run.measure(EDIT, "clip_score"), 3, 1),
        "warp error": (lambda run: run.measure(EDIT, "warp_error"), 2, 1),
        "warp error, all pixels": (lambda run: run.measure(EDIT, "warp_error_all"), 2, 1),
    }
    return columns | ({"target word, %": (words, 0, 100)} if words else {})


def edits(made: Evaluation, words: Value | None) -> str:
    """Table 2, with the source itself. words: the share of frames that show the target word, if it can be told."""
    columns, lines = _edit_columns(words), []
    for method, (name, _) in METHODS.items():
        if runs := made.edits(method):
            clip, warp = PAPER_EDITS[method]
            numbers = [cell(mean(runs, value), digits, times=times) for value, digits, times in columns.values()]
            lines.append([name, *numbers, clip, warp])
    source = {
        "warp error": lambda run: run.measure(EDIT, "source_warp_error"),
        "warp error, all pixels": lambda run: run.measure(EDIT, "source_warp_error_all"),
    }
    every = [run for run in made.runs if run.group in METHODS]
    itself = [cell(mean(every, source[name]), 2) if name in source else NOTHING for name in columns]
    lines.append(["*the source itself*", *itself, NOTHING, NOTHING])
    return markdown.table(["method", *columns, "CLIP score, paper", "warp error, paper"], lines, numbers=True)


def edit_gains(made: Evaluation, words: Value | None) -> str:
    """What STEM adds to each editor, edit by edit; "" where there is nothing to compare."""
    columns, lines = _edit_columns(words), []
    for editor in ("fatezero", "tokenflow"):
        stem, ddim = made.edits(f"stem-{editor}"), made.edits(f"ddim-{editor}")
        if stem and ddim:
            found = [cell(gain(stem, ddim, value), digits, "+", times) for value, digits, times in columns.values()]
            lines.append([f"{METHODS[f'stem-{editor}'][0]} - {METHODS[f'ddim-{editor}'][0]}", *found])
    return _filled(["difference", *columns], lines) if lines else ""


def reconstructions(made: Evaluation) -> str:
    """Fig. 4 as a table: every inversion, however it is denoised."""
    base, every = made.edits("ddim-tokenflow"), [run for run in made.runs if run.group in METHODS]
    alone = [cell(mean(every, closeness(VAE, name)), digits) for name, digits in CLOSENESS.items()]
    lines = [["*the VAE alone*", NOTHING, *alone, NOTHING, NOTHING]]
    for name, runs, what in reconstructed(made):
        line = [name, DENOISERS[what]]
        line += [cell(mean(runs, closeness(what, measure)), digits) for measure, digits in CLOSENESS.items()]
        for measure, digits in CLOSENESS.items():
            found = gain(runs, base, closeness(what, measure), closeness(PLAIN, measure))
            line.append(NOTHING if runs == base else cell(found, digits, "+"))
        lines.append(line)
    return markdown.table(["inversion", "attention", "PSNR", "SSIM", "PSNR, gain", "SSIM, gain"], lines, numbers=True)


def reconstructed(made: Evaluation) -> list[tuple[str, list[Run], str]]:
    """The inversions that were reconstructed: a name, its runs, and how they were denoised."""
    of_method = {
        "ddim-tokenflow": "DDIM, 1 frame",
        "stem-tokenflow": "STEM for TokenFlow",
        "ddim-fatezero": "DDIM, 2 frames",
        "stem-fatezero": "STEM for FateZero",
    }
    found = []
    for method, name in of_method.items():
        runs = made.edits(method)
        found += [(name, runs, what) for what in DENOISERS if any(run.measure(what, "psnr") for run in runs)]
    return found


def closeness(what: str, measure: str) -> Value:
    return lambda run: run.measure(what, measure)


def bases(made: Evaluation, words: Value | None) -> str:
    """Fig. 3 as a table: STEM-TokenFlow by K; "" where there are not several."""
    columns: dict[str, tuple[Callable, int, float]] = {
        "PSNR": (closeness(PLAIN, "psnr"), 2, 1),
        "SSIM": (closeness(PLAIN, "ssim"), 3, 1),
        "PSNR, own attention": (closeness(OWN, "psnr"), 2, 1),
        **_edit_columns(words),
    }
    lines = []
    for count in sorted(made.bases):
        if runs := made.of("stem-tokenflow", count):
            numbers = [cell(mean(runs, value), digits, times=times) for value, digits, times in columns.values()]
            lines.append([str(count), *numbers])
    return _filled(["K", *columns], lines) if len(lines) > 1 else ""
