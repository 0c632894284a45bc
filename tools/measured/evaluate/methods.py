"""What is run: a workflow for each method and each kind of inversion, with a job for each clip, edit and K."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....batch.jobs import Job
from ....batch.workflow import Workflow
from ....stem_kernels.prompt_words import folded
from .clips import Edit
from .workflows import EDIT, Settings, edit_graph, inversion_graph

# By method, its name in the paper and the shipped workflow.
METHODS = {
    "ddim-fatezero": ("FateZero", "ddim_fatezero_edit"),
    "stem-fatezero": ("STEM-FateZero", "stem_fatezero_object"),
    "ddim-tokenflow": ("TokenFlow", "ddim_tokenflow_edit"),
    "stem-tokenflow": ("STEM-TokenFlow", "stem_tokenflow_edit"),
}
INVERSION = "inversion"
# Table 1: inversions of the model as it is, of one that reads other frames, and of one with bases.
ONE_FRAME, CONTEXT, BASES = "inversion-one-frame", "inversion-context", "inversion-bases"
CONTEXTS = {"2-frames": "own and middle frame (2 frames, Eq. 6)", "all-frames": "all frames"}
NUM_BASES, FRAMES = "STEM Bases.num_bases", "Frame Context.frames"
# By kind of edit, what Edit Video by Text and FateZero's presets have for it (docs/defaults.md).
GUIDANCE = {"object": (0.0, 0.75), "style": (0.167, 0.75), "colour": (0.167, 0.5)}
PRESETS = {"object": "shape", "style": "style", "colour": "attribute"}
# New words of a style that are not its name.
_SMALL = set("a an the of in on at by with and as to for from like style".split())


@dataclass(frozen=True)
class Group:
    """Jobs of one workflow, with a folder of results.

    alone: each has a ComfyUI of its own and no other runs beside it, because time and memory are measured.
    """

    name: str
    workflow: Workflow
    jobs: list[Job]
    alone: bool = False

    def folder(self, out: Path) -> Path:
        return out / self.name


def groups(
    wanted: Iterable[str], edits: Sequence[Edit], settings: Settings, bases: Sequence[int], timed: int
) -> list[Group]:
    """The groups of the wanted methods, of which "inversion" is one, in the order in which they are to run.

    bases: numbers of bases; the first is that of the edits, the others are compared with it.
    timed: how many clips the inversions alone are run on.
    """
    made = []
    for name in wanted:
        if name == INVERSION:
            made += _inversions(edits, settings, bases, timed)
        else:
            made.append(Group(name, edit_graph(METHODS[name][1], settings), list(_jobs(name, edits, bases))))
    return made


def _jobs(method: str, edits: Sequence[Edit], bases: Sequence[int]) -> Iterable[Job]:
    """With each number of bases where the method has any and takes several; edits of a clip follow each other."""
    counts = {"stem-tokenflow": bases, "stem-fatezero": bases[:1]}.get(method, [None])
    for count in counts:
        for edit in edits:
            values = {"source": edit.source, "target": edit.target}
            values |= {f"{EDIT} metrics.target_prompt": edit.target, f"{EDIT} metrics.source_prompt": edit.source}
            if method.endswith("tokenflow"):
                start, end = GUIDANCE[edit.kind]
                values |= {"TokenFlow Edit.cfg_start_percent": start, "TokenFlow Edit.cfg_end_percent": end}
            else:
                new = new_words(edit.source, edit.target) if edit.kind == "style" else []
                weighted = ", ".join(f"{word}: 10" for word in new if word.lower() not in _SMALL)
                values |= {"FateZero Edit.preset": PRESETS[edit.kind], "FateZero Edit.word_weights": weighted}
            yield _job(edit, values, count)


def _inversions(edits: Sequence[Edit], settings: Settings, bases: Sequence[int], timed: int) -> list[Group]:
    """Each clip goes through all of them before the next does: a machine that gets slower would else look like a method
    that is slow. So a group comes again with one clip more."""
    clips: dict[str, Edit] = {}
    for edit in edits:
        clips.setdefault(edit.video, edit)
    names = {ONE_FRAME: "ddim_tokenflow_edit", CONTEXT: "ddim_fatezero_edit", BASES: "stem_fatezero_object"}
    graphs = {name: inversion_graph(shipped, settings) for name, shipped in names.items()}
    jobs: dict[str, list[Job]] = {name: [] for name in names}
    made = []
    for edit in list(clips.values())[:timed]:
        values = {"source": edit.source}
        jobs[ONE_FRAME].append(_job(edit, values, None))
        jobs[CONTEXT] += [_job(edit, {**values, FRAMES: of}, None, f".{name}") for name, of in CONTEXTS.items()]
        jobs[BASES] += [_job(edit, values, count) for count in bases]
        made += [Group(name, graphs[name], list(jobs[name]), alone=True) for name in names]
    return made


def _job(edit: Edit, values: dict, bases: int | None, more: str = "") -> Job:
    if bases is None:
        return Job(f"{edit.id}{more}", edit.video, values, edit.row)
    return Job(f"{edit.id}.k{bases}", edit.video, {**values, NUM_BASES: bases}, edit.row)


def new_words(source: str, target: str) -> list[str]:
    """Words of the target prompt that the source prompt has not, without punctuation."""
    known = {folded(word) for word in _words(source)}
    return [word for word in dict.fromkeys(_words(target)) if folded(word) not in known]


def _words(prompt: str) -> list[str]:
    return [word.strip(".,;:!?\"'()") for word in prompt.split()]
