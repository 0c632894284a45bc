"""The folder that a run leaves.

    run.json                      what made it: workflow, models, code
    jobs.jsonl                    the jobs, as they were read
    events.jsonl                  what happened, a line each; the driver alone writes it
    clips/<ab>/<id>/report.json   a clip that is done, beside its videos
    failed/<id>.json              a clip that cannot be done, with the reason
    summary.json, summary.csv     at the end
    tmp/                          what is being written

A clip is done if and only if its report is there. Its folder is made in tmp and put in its place by one rename, so a
clip is there whole or not at all, whoever is killed when. `ab` is a hash of the id: folders stay small.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .jobs import Job, JobsError

HEARTBEAT_SECONDS = 10
# A driver whose lock is this old is gone: it may run on another machine, so that it cannot be asked.
STALE_SECONDS = 120
# Left free on the disk of the results: a clip's videos, many times over.
RESERVE_BYTES = 200_000_000


class Results:
    """The results in a folder, which is made if missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()

    def place(self, job: str) -> Path:
        """The folder of a clip that is done."""
        return self.folder / "clips" / hashlib.sha256(job.encode()).hexdigest()[:2] / job

    def report(self, job: str) -> dict | None:
        """The report of a clip, or None when it is not done."""
        return _read(self.place(job) / "report.json")

    def failure(self, job: str) -> dict | None:
        """Why a clip cannot be done, or None."""
        return _read(self.folder / "failed" / f"{job}.json")

    def is_done(self, job: str) -> bool:
        return (self.place(job) / "report.json").is_file()

    def commit(self, job: str, files: Mapping[str, Path], report: Mapping[str, Any]) -> bool:
        """Puts a clip in its place: files by the name that they get, and the report. They are moved where possible.

        Returns whether it is this one that is there: the first that is committed stays, as when a machine that was
        given up wakes again.

        Raises:
            OSError: the disk is full, or cannot be written; nothing is left of the clip.
        """
        place, made = self.place(job), self.folder / "tmp" / f"{job}.{uuid.uuid4().hex}"
        made.mkdir(parents=True)
        try:
            for name, file in files.items():
                shutil.move(file, made / name)
                _synchronise(made / name)
            _write(made / "report.json", report)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                made.rename(place)
            except OSError:
                if not self.is_done(job):
                    raise
                return False
            _synchronise(place.parent)
            (self.folder / "failed" / f"{job}.json").unlink(missing_ok=True)
            return True
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def fail(self, job: str, failure: Mapping[str, Any]) -> None:
        """Keeps why a clip cannot be done."""
        (self.folder / "failed").mkdir(parents=True, exist_ok=True)
        _write(self.folder / "failed" / f"{job}.json", failure)

    def forget_failures(self) -> int:
        """So that the clips are tried again; returns how many."""
        failed = list((self.folder / "failed").glob("*.json"))
        for file in failed:
            file.unlink()
        return len(failed)

    def event(self, event: str, **content: Any) -> None:
        """Appends a line to events.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **content}, default=str)
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def keep_jobs(self, jobs: Iterable[Job]) -> None:
        """Writes the jobs, for `retry`, `status` and `export`."""
        text = "".join(json.dumps(asdict(job)) + "\n" for job in jobs)
        _write_text(self.folder / "jobs.jsonl", text)

    def holds_jobs(self) -> bool:
        """Whether a run has begun here."""
        return (self.folder / "jobs.jsonl").is_file()

    def jobs(self) -> list[Job]:
        """The jobs as they were read. JobsError where the folder holds no run."""
        try:
            with (self.folder / "jobs.jsonl").open(encoding="utf-8") as content:
                return [Job(**json.loads(line)) for line in content]
        except (OSError, ValueError, TypeError) as error:
            raise JobsError(f"{self.folder} holds no run that can be read: {error}.") from None

    def run(self) -> dict:
        """run.json, or an empty one."""
        return _read(self.folder / "run.json") or {}

    def keep_run(self, content: Mapping[str, Any]) -> None:
        _write(self.folder / "run.json", content)

    def has_room(self) -> bool:
        """Whether another clip fits on the disk."""
        return shutil.disk_usage(self.folder).free > RESERVE_BYTES

    def sweep(self) -> None:
        """Deletes what a killed run has left in tmp."""
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def rows(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """A row for each job: what became of it, its values, its files."""
        rows = []
        for job in jobs:
            report, failure = self.report(job.id), self.failure(job.id)
            state = "done" if report is not None else "failed" if failure is not None else "open"
            row = {"id": job.id, "state": state, "video": job.video, **job.values}
            if report is not None:
                row |= {"seconds": report.get("seconds"), "peak_memory_mb": report.get("peak_memory_mb")}
                row["files"] = " ".join((self.place(job.id) / name).as_posix() for name in report.get("files", []))
            elif failure is not None:
                row |= {"kind": failure.get("kind"), "reason": failure.get("reason")}
            rows.append(row)
        return rows

    def summarise(self, jobs: Iterable[Job]) -> dict[str, Any]:
        """Writes summary.json and summary.csv, and returns the former's content."""
        rows = self.rows(jobs)
        counts = {state: sum(row["state"] == state for row in rows) for state in ("done", "failed", "open")}
        content = {"clips": len(rows), **counts, "failures": Counter(row["kind"] for row in rows if "kind" in row)}
        _write(self.folder / "summary.json", content)
        write_table(self.folder / "summary.csv", rows)
        return content

    def owner(self) -> str | None:
        """Which run is under way here, and when it was last seen."""
        try:
            age = time.time() - (self.folder / "lock.json").stat().st_mtime
        except OSError:
            return None
        return f"{(_read(self.folder / 'lock.json') or {}).get('owner', 'A run')}, seen {age:.0f} s ago."

    @contextmanager
    def lock(self) -> Iterator[Heart]:
        """For the one driver of this folder. JobsError names the other one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file, own = self.folder / "lock.json", f"{socket.gethostname()}, process {os.getpid()}"
        heart = Heart(file, {"owner": own, "host": socket.gethostname(), "pid": os.getpid(), "key": uuid.uuid4().hex})
        for _ in range(3):
            try:
                descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                self._take_over(file)
                continue
            with os.fdopen(descriptor, "w", encoding="utf-8") as content:
                json.dump(heart.content, content)
            break
        else:
            raise JobsError(f"The lock {file} keeps coming back. Is another run being started again and again?")
        try:
            yield heart
        finally:
            if heart.is_own():
                file.unlink(missing_ok=True)

    def _take_over(self, file: Path) -> None:
        """Removes the lock of a driver that is gone, or raises."""
        other = _read(file) or {}
        try:
            age = time.time() - file.stat().st_mtime
        except OSError:
            return
        gone = other.get("host") == socket.gethostname() and not _runs(other.get("pid", 0))
        if not gone and age < STALE_SECONDS:
            raise JobsError(
                f"{self.folder} is in use by {other.get('owner', 'another run')}, seen {age:.0f} s ago. Wait for it, "
                f"stop it, or name another folder. If it is gone, this goes on {STALE_SECONDS - age:.0f} s from now."
            )
        # of two that find it stale, one renames it; the other finds it gone
        stale = file.with_name(f"lock.{uuid.uuid4().hex}")
        try:
            file.rename(stale)
            stale.unlink()
        except OSError:
            pass


class Heart:
    """Keeps a lock young while `beat` is called."""

    def __init__(self, file: Path, content: dict) -> None:
        self.file, self.content, self._last = file, content, time.monotonic()

    def is_own(self) -> bool:
        return (_read(self.file) or {}).get("key") == self.content["key"]

    def beat(self) -> None:
        """JobsError when another driver has taken over, as after a long sleep of this machine."""
        if time.monotonic() - self._last < HEARTBEAT_SECONDS:
            return
        self._last = time.monotonic()
        if not self.is_own():
            raise JobsError(f"Another run has taken over {self.file.parent}; this one stops.")
        os.utime(self.file)


def write_table(file: Path, rows: list[dict]) -> None:
    """A CSV whose columns are all that occur; Parquet where the name ends so."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if file.suffix.lower() == ".parquet":
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise JobsError("Parquet needs pyarrow, which is not installed: pip install pyarrow.") from None
        texts = {name: [None if row.get(name) is None else str(row[name]) for row in rows] for name in columns}
        pyarrow.parquet.write_table(pyarrow.table(texts), file)
        return
    with file.open("w", encoding="utf-8", newline="") as content:
        writer = csv.DictWriter(content, columns)
        writer.writeheader()
        writer.writerows(rows)


def _runs(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def _read(file: Path) -> dict | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write(file: Path, content: Mapping[str, Any]) -> None:
    _write_text(file, json.dumps(content, indent=2, default=str) + "\n")


def _write_text(file: Path, text: str) -> None:
    """The file is the old one or the new one, never a part."""
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("w", encoding="utf-8") as content:
            content.write(text)
            content.flush()
            os.fsync(content.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    """So that what the disk holds after a power cut is not an empty file of the right name."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
