"""`make evaluate`: the paper's tables on clips and weights of your own, by ComfyUIs as `batch` runs them."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ....batch.cluster import connected
from ....batch.comfyui.process import device_arguments
from ....batch.jobs import JobsError
from ....batch.options import add_settings, settings_of
from ....batch.results import Results
from ....batch.run import DONE, INTERRUPTED, NOT_ALL, SOME_FAILED, STOPPED, RunSettings, run_jobs
from ... import locations
from ...demo import host_environment
from . import example, page
from .clips import read_edits
from .methods import INVERSION, METHODS, Group, groups
from .workflows import Settings

OUTPUT = locations.ROOT / "output" / "evaluate"
CLIPS = 12
# For the small model, whose frames have few tokens and whose prompts need little guidance (docs/defaults.md); frames
# and steps are those of `make quality`.
SMALL = Settings(locations.TRAINED.name, 128, 128, frames=8, steps=12, cfg=4.0, negative="")
SMALL_BASES, BASES = (64, 16, 128), (256, 128, 512)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; an empty value counts as not given, so that make can pass all of them."""
    parser = argparse.ArgumentParser(prog="make evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", default="", help="folder of videos, or of folders of pictures (DAVIS)")
    parser.add_argument("--prompts", default="", help="table with video, source, target; if wanted also edit and id")
    parser.add_argument("--methods", default="", help=f"some of: {INVERSION}, {', '.join(METHODS)}; all if not given")
    parser.add_argument("--bases", default="", help="numbers of bases; the first for the edits, the others to compare")
    parser.add_argument("--size", default="", help="of the clips as they are loaded, such as 512x512")
    for name in ("frames", "steps", "seed"):
        parser.add_argument(f"--{name}", default="", help="by default that of the shipped workflows")
    parser.add_argument("--clip-vision", default="", help="file of a CLIP vision model, for the CLIP score")
    parser.add_argument("--clip-text", default="", help="file of its text model, with projection")
    parser.add_argument("--flow", default="", help="file of RAFT's weights for the optical flow; without it, DIS")
    parser.add_argument("--timed", type=int, default=3, help="clips that inversions alone are timed on")
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page of what is there")
    parser.add_argument("--out", default="")
    add_settings(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs what is missing and writes the page; returns the exit status, as `batch run` does."""
    options = parse(arguments)
    out = Path(options.out or OUTPUT).resolve()
    try:
        status = DONE if options.page_only else run(options, out)
        written = page.write(out)
    except JobsError as error:
        print(f"evaluate stopped: {error}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("evaluate interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    print(f"written: {written}" if written else f"{out} holds no results yet.")
    return status


def run(options: argparse.Namespace, out: Path) -> int:
    """Runs the groups one after the other, until one is stopped."""
    wanted = options.methods.replace(",", " ").split() or [INVERSION, *METHODS]
    if odd := [name for name in wanted if name not in (INVERSION, *METHODS)]:
        raise JobsError(f"There is no method {odd[0]!r}; there are {INVERSION}, {', '.join(METHODS)}.")
    files = models(options)
    settings, bases = settings_from(options, files)
    edits = read_edits(*clips_and_prompts(options, out, settings), out / "clips")
    todo, how = groups(wanted, edits, settings, bases, options.timed), run_settings(options, files, out)
    still = [group for group in todo if not all(Results(group.folder(out)).is_done(job.id) for job in group.jobs)]
    failed = False
    with connected(how.address, how.dashboard) if still else nullcontext():
        for group in todo:
            print(f"{group.name}:")
            status = run_group(group, out, how)
            if status in (INTERRUPTED, NOT_ALL):
                return status
            failed |= status == SOME_FAILED
    return SOME_FAILED if failed else DONE


def run_group(group: Group, out: Path, how: RunSettings) -> int:
    folder = group.folder(out)
    how = replace(how, worker=replace(how.worker, results=str(folder)))
    if group.alone:
        how = replace(how, workers=1, worker=replace(how.worker, recycle=1))
    return run_jobs(Results(folder), group.workflow, group.jobs, how, lambda text: print(f"  {text}", flush=True))


def models(options: argparse.Namespace) -> dict[str, Path]:
    """The files of models, by the folder that ComfyUI has for their kind."""
    named = {
        "checkpoints": options.checkpoint or locations.TRAINED,
        "clip_vision": options.clip_vision,
        "text_encoders": options.clip_text,
        "optical_flow": options.flow,
    }
    found = {folder: Path(file).expanduser().resolve() for folder, file in named.items() if file}
    for folder, file in found.items():
        if not file.is_file():
            raise JobsError(f"There is no file {file} ({folder}). Give the path of a file.")
    if ("clip_vision" in found) != ("text_encoders" in found):
        raise JobsError("The CLIP score needs both models: CLIP_VISION=file CLIP_TEXT=file, or neither of them.")
    return found


def settings_from(options: argparse.Namespace, files: dict[str, Path]) -> tuple[Settings, tuple[int, ...]]:
    """The settings of all graphs, and the numbers of bases."""
    small = files["checkpoints"] == locations.TRAINED
    given = {name: whole_number(name, getattr(options, name)) for name in ("frames", "steps", "seed")}
    if options.size:
        if not re.fullmatch(r"\d+x\d+", options.size):
            raise JobsError(f"SIZE is {options.size!r}; write width and height: 512x512.")
        given["width"], given["height"] = map(int, options.size.split("x"))
    given |= {
        "clip_vision": files["clip_vision"].name if "clip_vision" in files else None,
        "clip_text": files["text_encoders"].name if "text_encoders" in files else None,
        "flow": files["optical_flow"].name if "optical_flow" in files else None,
    }
    base = SMALL if small else Settings(files["checkpoints"].name)
    bases = tuple(dict.fromkeys(whole_number("bases", text) for text in options.bases.replace(",", " ").split()))
    settings = replace(base, **{name: value for name, value in given.items() if value is not None})
    return settings, bases or (SMALL_BASES if small else BASES)


def whole_number(name: str, text: str) -> int | None:
    if text and not text.isdigit():
        raise JobsError(f"{name.upper()} is {text!r}; it takes whole numbers.")
    return int(text) if text else None


def clips_and_prompts(options: argparse.Namespace, out: Path, settings: Settings) -> tuple[Path, Path]:
    """Those that are named, or the example's, which are rendered into the output."""
    if bool(options.clips) != bool(options.prompts):
        raise JobsError("CLIPS (a folder) and PROMPTS (a table of video, source, target) go together.")
    if options.clips:
        return Path(options.clips).expanduser(), Path(options.prompts).expanduser()
    if settings.checkpoint != locations.TRAINED.name:
        raise JobsError("A checkpoint of your own needs clips of your own: CLIPS=folder PROMPTS=prompts.csv.")
    table = example.write(out / "example", CLIPS, settings.frames)
    return table.parent, table


def run_settings(options: argparse.Namespace, files: dict[str, Path], out: Path) -> RunSettings:
    """For the engine: a ComfyUI that has the pack, these models and, on every device, the same kind of attention."""
    where = locations.from_environment()
    ours = {"comfyui": options.comfyui or where.host, "python": options.python or str(where.host_python)}
    small = files["checkpoints"] == locations.TRAINED
    if small and options.workers == "auto" and options.address == "local" and device_arguments(ours["python"]):
        # on CPUs one thread each is the fastest for frames as small as the small model's
        ours["workers"] = str(min(4, os.cpu_count() or 1))
    # models come below, those of all kinds alike
    how = settings_of(argparse.Namespace(**{**vars(options), **ours, "out": out, "checkpoint": None}))
    packs = {name: str(folder) for name, folder in locations.PACKS.items()}
    worker = replace(
        how.worker,
        packs={**packs, **{pack.name: str(pack.resolve()) for pack in options.pack}},
        models={folder: (str(file),) for folder, file in files.items()},
        arguments=("--use-pytorch-cross-attention", *how.worker.arguments),
        environment=host_environment(),
    )
    return replace(how, worker=worker)
