"""The files that nodes read and write: videos of the input folder, and inversions in `inversions` of both folders.

Nothing beyond these folders is read or written, whatever a name says and wherever links lead, but the example clip that
comes with the pack.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths

from .methods.seams.telling import running_server
from .video import VideoError
from .video.container import ENDINGS

FOLDER = "inversions"
SUFFIX = ".safetensors"
_OUTPUT = " [output]"
# A clip that every list of videos ends with, so that a template runs in a ComfyUI without any.
EXAMPLE = "big_buck_bunny.mp4 [example]"
_DATE_PARTS = {"y": "tm_year", "M": "tm_mon", "d": "tm_mday", "h": "tm_hour", "m": "tm_min", "s": "tm_sec"}
_DATE_TOKEN = r"yyyy|yy|MM?|dd?|hh?|mm?|ss?"
_ASSETS = Path(__file__).resolve().parents[1] / "assets"


def input_videos() -> list[str]:
    """Names of the videos in the input folder, its subfolders after it, and of the example, for a list of choices."""
    root = Path(folder_paths.get_input_directory())
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(folder).relative_to(root)
        known = {*folder_paths.filter_files_content_types(files, ["video"])}
        known |= {name for name in files if name.lower().endswith(ENDINGS)}
        found += [(inner / name).as_posix() for name in sorted(known) if os.path.isfile(os.path.join(folder, name))]
    return [*found, EXAMPLE]


def input_video_path(name: str | None) -> str:
    """The real path of a video of the input folder, or of the example.

    Raises VideoError for a path that leaves the folder (see `inside_folder`), and where no name is given.
    """
    if not name or not isinstance(name, str):
        raise VideoError("No video is chosen. Upload one, or connect a video.")
    if name == EXAMPLE:
        return str(_ASSETS / EXAMPLE.removesuffix(" [example]"))
    try:
        path = _stored_at(name, folder_paths.get_annotated_filepath)
    except ValueError:  # newer versions of ComfyUI themselves refuse paths that lead out of the folder
        raise _outside(name) from None
    return inside_folder(path, folder_paths.get_input_directory())


def show_example() -> None:
    """Lets ComfyUI's page show the example, which it asks for as for a file of the input folder; to be called once."""
    server = running_server()
    if server is None or server.PromptServer.instance.app.frozen:
        return

    @server.web.middleware
    async def with_example(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if request.path in ("/view", "/api/view") and request.query.get("filename") == EXAMPLE:
            return server.web.FileResponse(input_video_path(EXAMPLE))
        return await handler(request)

    server.PromptServer.instance.app.middlewares.append(with_example)


def inside_folder(path: str, folder: str) -> str:
    """The real path of the regular file `path`, which must lie in `folder` once all links are followed.

    Raises VideoError for a path that leaves the folder (`..`, another drive, a symbolic link) and for anything that is
    not a regular file: a named pipe would wait forever.
    """
    real = contained(path, folder)
    if real is None:
        raise _outside(path)
    if not os.path.isfile(real):
        shown = os.path.basename(path)[:200]
        raise VideoError(f"There is no file '{shown}' in the input folder. Upload the video, or choose another.")
    return real


def _stored_at(name: str, path_of: Callable[[str], str]) -> str:
    """The path of a name; read as one of Windows, where the workflow may have been made, if there is no such file."""
    path = path_of(name)
    return path if os.path.exists(path) else path_of(name.replace("\\", "/"))


def _outside(path: str) -> VideoError:
    return VideoError(
        f"The file '{os.path.basename(path)[:200]}' lies outside the input folder, which this node does not read. "
        "Copy the video itself into the input folder (a link to it is not enough), or upload it."
    )


def saved_inversions() -> list[str]:
    """Names for a list of choices, the newest first; those in the output folder are marked as ComfyUI marks them."""
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
        raise ValueError(f"{purpose}: the file is given as {name!r:.50}, which is not a name. Choose from the list.")
    in_output = name.endswith(_OUTPUT)
    root = folder_paths.get_output_directory() if in_output else folder_paths.get_input_directory()
    folder = os.path.join(root, FOLDER)
    real = contained(_stored_at(name.removesuffix(_OUTPUT), partial(os.path.join, folder)), folder)
    if real is None or not real.endswith(SUFFIX):
        raise ValueError(
            f"{purpose}: '{name[:200]}' is not a file of the folder {FOLDER} in ComfyUI's input or output folder, "
            "and nothing else is read. Copy the file itself there."
        )
    if not os.path.isfile(real):
        raise ValueError(f"{purpose}: the file '{name[:200]}' no longer exists. Choose another, or save it again.")
    return Path(real)


def free_path(prefix: str, purpose: str) -> tuple[Path, str, str]:
    """A file of the output folder that does not exist yet, its name, and its folder below the output folder.

    Raises:
        ValueError: the prefix leads out of the output folder.
    """
    output = folder_paths.get_output_directory()
    prefix = with_dates(prefix, time.localtime())

    def check(path: str) -> None:
        if contained(path, os.path.join(output, FOLDER)) is None:
            raise ValueError(f"{purpose}: '{prefix[:200]}' leads out of the folder {FOLDER}. Choose a plain name.")

    check(os.path.join(output, FOLDER, prefix))  # before ComfyUI makes folders
    try:
        where = folder_paths.get_save_image_path(f"{FOLDER}/{prefix}", output)
    except OSError as error:
        raise ValueError(
            f"{purpose}: the output folder cannot be written to ({error}). Make it writable, or start ComfyUI with "
            "another --output-directory."
        ) from None
    except Exception as error:  # ComfyUI raises a bare Exception
        raise ValueError(f"{purpose}: '{prefix[:200]}' is not a name within the output folder ({error}).") from None
    folder, stem, counter, subfolder, _ = where
    name = f"{stem}_{counter:05}_{SUFFIX}"
    path = os.path.join(folder, name)
    check(path)
    return Path(path), name, subfolder


def with_dates(prefix: str, now: time.struct_time) -> str:
    """A prefix with %date:yyyy-MM-dd% and the like filled in, as ComfyUI's page does for its own save nodes alone."""

    def part(token: re.Match) -> str:
        kind = token[0]
        value = getattr(now, _DATE_PARTS[kind[0]])
        return f"{value:04}"[-len(kind) :] if kind[0] == "y" else f"{value:0{len(kind)}}"

    return re.sub(r"%date:([^%]*)%", lambda date: re.sub(_DATE_TOKEN, part, date[1]), prefix)


def contained(path: str, folder: str) -> str | None:
    """The real path of `path`, or None where it does not lie in `folder` once all links are followed."""
    try:
        real, root = os.path.realpath(path), os.path.realpath(folder)
        return real if os.path.commonpath([real, root]) == root and real != root else None
    except ValueError:  # another drive, or a null byte
        return None


def file_state(path: str) -> str:
    """A text that changes when the file at `path` does: its time of change and its size."""
    stat = os.stat(path)
    return f"{stat.st_mtime_ns}:{stat.st_size}"
