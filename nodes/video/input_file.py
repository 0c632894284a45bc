"""Files of the input folder, and none beyond it."""

from __future__ import annotations

import os

from .errors import VideoError


def contained(path: str, folder: str) -> str | None:
    """The real path of `path`, or None where it does not lie in `folder` once all links are followed."""
    try:
        real, root = os.path.realpath(path), os.path.realpath(folder)
        return real if os.path.commonpath([real, root]) == root and real != root else None
    except ValueError:  # another drive, or a null byte
        return None


def inside_folder(path: str, folder: str) -> str:
    """The real path of the regular file `path`, which must lie in `folder` once all links are followed.

    Raises VideoError for a path that leaves the folder (`..`, another drive, a symbolic link) and for anything that is
    not a regular file: a named pipe would wait for ever.
    """
    shown = os.path.basename(path)[:200]
    real = contained(path, folder)
    if real is None:
        raise outside_folder(shown)
    if not os.path.isfile(real):
        raise VideoError(f"There is no file '{shown}' in the input folder. Upload the video, or choose another.")
    return real


def outside_folder(shown: str) -> VideoError:
    """The refusal of a file by its name."""
    return VideoError(
        f"The file '{shown}' lies outside the input folder, which this node does not read. "
        "Copy the video itself into the input folder (a link to it is not enough), or upload it."
    )


def file_state(path: str) -> str:
    """A text that changes when the file at `path` does: its time of change and its size."""
    stat = os.stat(path)
    return f"{stat.st_mtime_ns}:{stat.st_size}"
