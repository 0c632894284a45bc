"""What a person calls: run, status, retry, export."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from .film.division import Division
from .jobs import Job, JobsError, read_jobs
from .options import add_settings, add_values, settings_of, values_of, workflow_of
from .results import Results, write_table
from .run import INTERRUPTED, STOPPED, RunSettings, dry_run, run_jobs
from .worker import WorkerSettings

_FILM_WORKFLOW = Path(__file__).resolve().parents[1] / "workflows" / "api" / "edit_video_by_text.json"


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
    run.add_argument("--dry-run", action="store_true", help="check table, files and workflow, and run nothing")
    add_values(run)
    add_settings(run)
    film = commands.add_parser("film", help="edit a film shot by shot, and join it with its sound; again, to go on")
    film.set_defaults(command=_film)
    film.add_argument("film", type=Path, help="the film")
    film.add_argument("out", type=Path, help="folder of the results")
    film.add_argument("--workflow", type=Path, default=_FILM_WORKFLOW, help="in API form; by default %(default)s")
    film.add_argument("--cuts", type=Path, help="CSV with the frame or time of each shot, or EDL; else they are found")
    film.add_argument(
        "--size", help="of the edit, as 768x320; by default in the film's shape, as large as the workflow's"
    )
    film.add_argument("--longest", type=int, default=Division.longest, help="frames edited at a time; 0: whole shots")
    film.add_argument("--overlap", type=int, default=Division.overlap, help="frames over which parts of a shot fade")
    film.add_argument("--anchors", type=int, default=Division.anchors, help="frames of a shot that all its parts share")
    film.add_argument("--dry-run", action="store_true", help="find the cuts, check everything, and run nothing")
    add_values(film)
    add_settings(film)
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


def _read(options: argparse.Namespace) -> list[Job]:
    jobs, warnings = read_jobs(options.jobs, values_of(options))
    for warning in warnings:
        print(warning)
    return jobs


def _run(options: argparse.Namespace) -> int:
    settings, workflow, jobs = settings_of(options), workflow_of(options), _read(options)
    if options.dry_run:
        print(f"{dry_run(workflow, jobs, settings)} clips would run; table, files and workflow are right.")
        return 0
    return run_jobs(Results(options.out), workflow, jobs, settings, _say)


def _film(options: argparse.Namespace) -> int:
    # only here, because it needs torch
    from .film.run import FilmSettings, edit_film

    division = Division(options.longest, options.overlap, options.anchors)
    wishes = FilmSettings(options.cuts, values_of(options), _size(options.size), division)
    settings, workflow = settings_of(options), workflow_of(options)
    return edit_film(options.film, Results(options.out), workflow, wishes, settings, _say, options.dry_run)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) >= 64 and int(side) % 8 == 0 for side in sides):
        raise JobsError(f"--size is {text!r}; it is a width and a height, multiples of 8 from 64, as 768x320.")
    return int(sides[0]), int(sides[1])


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
