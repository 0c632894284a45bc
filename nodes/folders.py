"""Files that nodes read and write: videos of the input folder, inversions in `inversions`, and nothing beyond."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from .video.errors import VideoError

FOLDER = "inversions"
SUFFIX = ".safetensors"
_OUTPUT = " [output]"


def saved_inversions() -> list[str]:
    """Names for a list of choices, the newest first; those in the output folder are marked as the host marks them."""
    found = []
    for root, mark in ((folder_paths.get_output_directory(), _OUTPUT), (folder_paths.get_input_directory(), "")):
        folder = Path(root) / FOLDER
        if folder.is_dir():
            files = [file for file in folder.rglob(f"*{SUFFIX}") if file.is_file() and not file.name.startswith(".")]
            found += [(file.stat().st_mtime, file.relative_to(folder).as_posix() + mark) for file in files]
    return [name for _, name in sorted(found, reverse=True)]


def inversion_path(name: str, purpose: str) -> Path:
    """The file that a name from `saved_inversions` stands for.

    Raises:
        ValueError: there is no such file, or it lies outside the folders once all links are followed.
    """
    if not isinstance(name, str):  # a workflow that a program has written may hold anything
        raise ValueError(f"{purpose}: the file is given as {name!r:.50}, which is no name. Choose one from the list.")
    in_output = name.endswith(_OUTPUT)
    root = folder_paths.get_output_directory() if in_output else folder_paths.get_input_directory()
    folder = os.path.join(root, FOLDER)
    real = contained(os.path.join(folder, name.removesuffix(_OUTPUT)), folder)
    if real is None or not real.endswith(SUFFIX):
        raise ValueError(
            f"{purpose}: '{name[:200]}' is no file of the folder {FOLDER} in the host's input or output folder, and "
            "nothing else is read. Copy the file itself there."
        )
    if not os.path.isfile(real):
        raise ValueError(f"{purpose}: there is no file '{name[:200]}' any more. Choose another, or save it again.")
    return Path(real)


def free_path(prefix: str, purpose: str) -> tuple[Path, str, str]:
    """A file of the output folder that does not exist yet, its name, and its folder below the output folder.

    Raises:
        ValueError: the prefix leads out of the output folder.
    """
    output = folder_paths.get_output_directory()

    def check(path: str) -> None:
        if contained(path, os.path.join(output, FOLDER)) is None:
            raise ValueError(f"{purpose}: '{prefix[:200]}' leads out of the folder {FOLDER}. Choose a plain name.")

    check(os.path.join(output, FOLDER, prefix))  # before the host makes folders
    try:
        where = folder_paths.get_save_image_path(f"{FOLDER}/{prefix}", output)
    except Exception as error:  # the host raises a bare Exception
        raise ValueError(f"{purpose}: '{prefix[:200]}' is no name within the output folder ({error}).") from None
    folder, stem, counter, subfolder, _ = where
    name = f"{stem}_{counter:05}_{SUFFIX}"
    path = os.path.join(folder, name)
    check(path)
    return Path(path), name, subfolder


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
