"""The options of whatever runs clips, and the settings that they make."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .jobs import JobsError
from .run import RunSettings
from .worker import PACK, WorkerSettings
from .workflow import Workflow, load_workflow

# The pack's name among the custom nodes of a ComfyUI that does not have it installed.
_NAME = "ComfyUI-STEM"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The options of whatever runs clips."""
    parser.add_argument("--workers", default="auto", help="ComfyUIs at a time; auto: one for each GPU, else for 4 CPUs")
    parser.add_argument(
        "--address",
        default="local",
        help="of a Ray cluster, as host:6379; auto: that of this machine; local: this machine alone",
    )
    parser.add_argument("--comfyui", type=Path, help="folder of the ComfyUI to run; by default the one this pack is in")
    parser.add_argument("--python", default="", help="the interpreter that runs it; by default this one")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint file that ComfyUI shall have beside its own")
    parser.add_argument(
        "--pack", type=Path, action="append", default=[], help="a custom node pack that it shall have too"
    )
    parser.add_argument("--argument", action="append", default=[], help="for ComfyUI's main.py: --argument=--lowvram")
    parser.add_argument("--minutes-per-clip", type=float, default=360, help="after which a clip has failed")
    parser.add_argument("--minutes-without-progress", type=float, default=30, help="after which ComfyUI starts again")
    parser.add_argument("--recycle", type=int, default=0, help="start ComfyUI again after so many clips")
    parser.add_argument("--keep", choices=["videos", "all"], default="videos", help="of what the workflow saves")
    parser.add_argument("--max-failures", default="100%", help="stop when more of the clips have failed, such as 5%%")
    parser.add_argument("--dashboard", action="store_true", help="serve Ray's page of the run")


def add_values(parser: argparse.ArgumentParser) -> None:
    """The options that stand for columns of all jobs."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="'NODE TITLE.FIELD=VALUE'", help="of all clips, such as seed"
    )
    parser.add_argument("--source", help="what the clips show, where the table does not say")
    parser.add_argument("--target", help="what they are to become, where the table does not say")


def settings_of(options: argparse.Namespace) -> RunSettings:
    """JobsError when an option cannot be used."""
    above = PACK.parent.parent
    installed = PACK.parent.name == "custom_nodes" and (above / "main.py").is_file()
    comfyui = options.comfyui or (above if installed else None)
    if comfyui is None or not (comfyui / "main.py").is_file():
        raise JobsError(
            f"There is no ComfyUI at {comfyui or above} (no main.py). Name its folder: --comfyui /path/to/ComfyUI."
        )
    if options.checkpoint and not options.checkpoint.is_file():
        raise JobsError(f"There is no checkpoint at {options.checkpoint}.")
    has_pack = any(folder.resolve() == PACK for folder in (comfyui / "custom_nodes").glob("*"))
    if has_pack and (options.checkpoint or options.pack):
        raise JobsError(
            f"{comfyui} has this pack installed, so its own models and packs are used: put the file or folder there. "
            "--checkpoint and --pack are for a ComfyUI without it."
        )
    return RunSettings(
        WorkerSettings(
            results=str(options.out.resolve()),
            comfyui=str(comfyui.resolve()),
            python=options.python or sys.executable,
            packs=None if has_pack else {_NAME: str(PACK), **{pack.name: str(pack.resolve()) for pack in options.pack}},
            models={"checkpoints": (str(options.checkpoint.resolve()),)} if options.checkpoint else {},
            arguments=tuple(options.argument),
            seconds=60 * options.minutes_per_clip,
            stall=60 * options.minutes_without_progress,
            recycle=options.recycle,
            keep=options.keep,
        ),
        workers=_workers(options.workers),
        address=options.address,
        most_failures=_share(options.max_failures),
        dashboard=options.dashboard,
    )


def _workers(text: str) -> int:
    if text == "auto":
        return 0
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise JobsError(f"--workers is {text!r}; it is auto or a number from 1.")


def _share(text: str) -> float:
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise JobsError(f"--max-failures is {text!r}; it is a share of the clips, from 0% to 100%.")
    return share


def values_of(options: argparse.Namespace) -> dict[str, Any]:
    """The columns of all clips' jobs, where their table does not say. JobsError when one cannot be read."""
    values = {name: text for name, text in (("source", options.source), ("target", options.target)) if text}
    for text in options.set:
        name, sign, value = text.partition("=")
        if not sign or "." not in name:
            raise JobsError(f"--set {text!r} does not say which field is what: --set 'STEM Bases.num_bases=128'.")
        values[name.strip()] = value
    return values


def workflow_of(options: argparse.Namespace) -> Workflow:
    """The workflow, with the checkpoint that is named beside it. JobsError when it cannot be read."""
    workflow = load_workflow(options.workflow)
    for entry in workflow.values() if options.checkpoint else ():
        if isinstance(entry["inputs"].get("ckpt_name"), str):
            entry["inputs"]["ckpt_name"] = options.checkpoint.name
    return workflow
