"""What a person calls: run, status, retry, export."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from .jobs import Job, JobsError, read_jobs
from .results import Results, write_table
from .run import INTERRUPTED, STOPPED, RunSettings, dry_run, run_jobs
from .worker import PACK, WorkerSettings
from .workflow import load_workflow

# The pack's name among the custom nodes of a ComfyUI that does not have it installed.
_NAME = "ComfyUI-STEM"


def main(arguments: list[str]) -> int:
    """Does what is asked and says so; returns the exit status.

    0: all clips are done; 1: nothing was run, with the reason; 3: some clips failed; 4: clips are open, because the
    disk is full or too many failed; 130: interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except JobsError as error:
        print(f"batch stopped: {error}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("batch interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="batch", description="Many clips through one workflow. See docs/batch.md.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="edit the clips of a table or folder; again, to go on")
    run.set_defaults(command=_run)
    run.add_argument("jobs", type=Path, help="CSV, JSONL or Parquet with a row for each clip, or a folder of videos")
    run.add_argument(
        "workflow", type=Path, help="a workflow in API form, such as workflows/api/edit_video_by_text.json"
    )
    run.add_argument("out", type=Path, help="folder of the results")
    run.add_argument("--source", help="what the clips show, where the table does not say")
    run.add_argument("--target", help="what they are to become, where the table does not say")
    run.add_argument("--dry-run", action="store_true", help="check table, files and workflow, and run nothing")
    add_settings(run)
    status = commands.add_parser("status", help="how far a run is")
    status.set_defaults(command=_status)
    retry = commands.add_parser("retry", help="run the clips that have failed again, and those that are open")
    retry.set_defaults(command=_retry)
    export = commands.add_parser("export", help="a table of all clips and their files")
    export.set_defaults(command=_export)
    for parser_of in (status, retry, export):
        parser_of.add_argument("out", type=Path, help="folder of the results")
    export.add_argument("table", type=Path, help="CSV or Parquet to write")
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The options of whatever runs clips."""
    parser.add_argument("--workers", default="auto", help="ComfyUIs at a time; auto: one for each GPU, else for 4 CPUs")
    parser.add_argument("--address", default="local", help="of a Ray cluster, as host:6379; local: this machine")
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


def _read(options: argparse.Namespace) -> list[Job]:
    jobs, warnings = read_jobs(options.jobs, options.source, options.target)
    for warning in warnings:
        print(warning)
    return jobs


def _run(options: argparse.Namespace) -> int:
    settings, workflow, jobs = settings_of(options), load_workflow(options.workflow), _read(options)
    if options.dry_run:
        print(f"{dry_run(workflow, jobs, settings)} clips would run; table, files and workflow are right.")
        return 0
    return run_jobs(Results(options.out), workflow, jobs, settings, _say)


def _retry(options: argparse.Namespace) -> int:
    results = Results(options.out)
    jobs, run = results.jobs(), results.run()
    try:
        arguments = dict(run["arguments"])
        worker = WorkerSettings(**{**arguments.pop("worker"), "results": str(results.folder)})
        settings = replace(RunSettings(worker, **arguments), kind=tuple(arguments["kind"]))
        workflow = run["graph"]
    except (KeyError, TypeError) as error:
        raise JobsError(f"{results.folder} holds no run that can be repeated: {error}.") from None
    with results.lock():
        print(f"{results.forget_failures()} clips that have failed are tried again.")
    return run_jobs(results, workflow, jobs, settings, _say)


def _status(options: argparse.Namespace) -> int:
    results = Results(options.out)
    jobs = results.jobs()
    done = sum(results.is_done(job.id) for job in jobs)
    failed = [failure for job in jobs if (failure := results.failure(job.id))]
    print(f"{len(jobs)} clips: {done} done, {len(failed)} failed, {len(jobs) - done - len(failed)} open.")
    print(results.owner() or "No run is under way here.")
    for failure in failed:
        print(f"{failure['id']}: {failure['kind']}: {failure['reason']}")
    return 0


def _export(options: argparse.Namespace) -> int:
    results = Results(options.out)
    write_table(options.table, results.rows(results.jobs()))
    print(f"written: {options.table}")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
