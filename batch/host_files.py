"""A worker's clip among the files of its ComfyUI, and what the workflow has saved of it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Literal

from .comfyui.client import Result
from .comfyui.events import title_of
from .jobs import VIDEOS
from .workflow import Workflow


def bring_in(video: Path, base: Path) -> str:
    """Puts a video into ComfyUI's input folder, alone, and returns its name there.

    The same video has the same name and stays until another one comes, so that ComfyUI knows it and its inversion again
    and nothing is copied twice. Where that can be, nothing is copied at all; Video Load follows no symbolic links.
    """
    name = hashlib.sha256(str(video).encode()).hexdigest()[:20] + video.suffix.lower()
    target = base / "input" / name
    for other in target.parent.iterdir():
        if other != target or not _same(video, target):
            _remove(other)
    if not target.exists():
        try:
            os.link(video, target)
        except OSError:
            shutil.copy2(video, target)
    return name


def saved(base: Path, workflow: Workflow, result: Result, keep: Literal["videos", "all"]) -> dict[str, Path]:
    """The files that the workflow has saved, by the names that they get among the results."""
    files: dict[str, Path] = {}
    for node, kinds in result.outputs.items():
        found = [file for of_kind in kinds.values() for file in of_kind if isinstance(file, dict)]
        paths = [
            base / "output" / file.get("subfolder", "") / file["filename"]
            for file in found
            if file.get("type") == "output"
        ]
        if keep == "videos":
            paths = [path for path in paths if path.suffix.lower() in VIDEOS]
        name = _name_of(title_of(workflow, node))
        for number, path in enumerate(paths):
            stem = name if len(paths) == 1 else f"{name}_{number:05d}"
            while f"{stem}{path.suffix}" in files:
                stem += "_"
            files[f"{stem}{path.suffix}"] = path
    return files


def clear(base: Path) -> None:
    """Removes what a clip has left, so that it is not taken for the next one's."""
    for name in ("output", "temp"):
        for entry in (base / name).glob("*"):
            _remove(entry)


def _same(video: Path, target: Path) -> bool:
    one, other = video.stat(), target.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _name_of(node: str) -> str:
    """A file's name from the title of the node that saves it: "Save edited video" makes edited.mp4."""
    words = ["".join(letter for letter in word if letter.isalnum()) for word in node.lower().split()]
    return "_".join(word for word in words if word not in ("", "save", "video", "the")) or "video"
