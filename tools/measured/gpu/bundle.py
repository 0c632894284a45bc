"""`make gpu-bundle`: packs what a machine lacks that has a GPU, PyTorch and its like, but no package index.

.setup/gpu then holds an archive of packages and of ComfyUI's source, and the programs of the folder `machine`. It
travels beside the checkout, and `OUT=folder bash .setup/gpu/run.sh` runs `make gpu` there.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from ... import locations
from ...host.environment.commands import Commands
from ...host.environment.steps import SetupError

MACHINE = Path(__file__).with_name("machine")
PACKED = "packed.tar.xz"
MOST_BYTES = 14_000_000
# Needs of ours and of ComfyUI's that such a machine does not have, with what they need in turn.
PACKAGES = (
    *("greenlet", "torchsde", "trampoline", "kornia", "kornia_rs"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"),
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")
# Of ComfyUI: all that its library imports.
COMFYUI = ("comfy", "comfy_api", "comfy_execution", "*.py", "LICENSE")


def download(folder: Path, python: str, commands: Commands) -> list[Path]:
    """Wheels of PACKAGES for that Python, in the versions that are installed here."""
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    platforms = [f"--platform={name}" for name in PLATFORMS]
    only = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", *platforms]
    commands.pip("download", "--dest", str(folder), *only, *wanted)
    return sorted(folder.glob("*.whl"))


def pack(wheels: list[Path], comfyui: Path, destination: Path) -> None:
    """Makes the folder: the wheels unpacked and ComfyUI in one archive, beside the programs."""
    shutil.rmtree(destination, ignore_errors=True)
    shutil.copytree(MACHINE, destination, ignore=shutil.ignore_patterns("__pycache__"))
    with tempfile.TemporaryDirectory() as packages, tarfile.open(destination / PACKED, "w:xz") as archive:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as unpacked:
                unpacked.extractall(packages)
        archive.add(packages, "packages")
        for part in (found for pattern in COMFYUI for found in sorted(comfyui.glob(pattern))):
            archive.add(part, f"comfyui/{part.name}", filter=_needed)


def _needed(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leaves out the tokenizers of other models, which are most of ComfyUI, and compiled code."""
    parts = Path(entry.name).parts
    other_tokenizer = len(parts) == 4 and parts[:3] == ("comfyui", "comfy", "text_encoders") and entry.isdir()
    return None if other_tokenizer or "__pycache__" in parts else entry


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(arguments: list[str]) -> int:
    """Makes the folder and says how large it is; returns the exit status."""
    where = locations.from_environment()
    parser = argparse.ArgumentParser(prog="make gpu-bundle", description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12", help="the machine's version of Python")
    parser.add_argument("--output", type=Path, default=locations.ROOT / ".setup" / "gpu")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            pack(download(Path(folder), options.python, Commands(where)), where.host, options.output)
    except SetupError as error:
        print(f"the bundle was not made: {error}")
        return 1
    size = size_of(options.output)
    print(f"{options.output}: {size / 1e6:.1f} MB, for Python {options.python}")
    if size > MOST_BYTES:
        print(
            f"That is more than the {MOST_BYTES / 1e6:g} MB that may travel with the checkout. "
            f"Take something out of PACKAGES or COMFYUI in {Path(__file__).relative_to(locations.ROOT)}."
        )
        return 1
    return 0
