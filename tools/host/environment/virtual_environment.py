"""The virtual environment, also on systems whose Python comes without ensurepip."""

from __future__ import annotations

import json
from pathlib import Path

from ...locations import Locations
from .commands import Commands
from .steps import SetupError

PATHS = "import json, sysconfig; print(json.dumps([sysconfig.get_paths()[key] for key in ('purelib', 'platlib')]))"


def create(where: Locations, commands: Commands) -> None:
    """Makes the environment with pip in it, unless one is there that works and has the version that would be made."""
    probe = "import sys, pip; print('{}.{}'.format(*sys.version_info))"
    version = commands.ask(where.python, probe) if where.python.exists() else None
    if version is None or version != commands.version_of(commands.base_python):
        base = str(commands.base_python)
        if commands.ask(commands.base_python, "import ensurepip") is not None:
            commands.run([base, "-m", "venv", "--clear", str(where.venv)])
        elif commands.ask(commands.base_python, "import venv, pip") is not None:
            # Debian keeps ensurepip in a package of its own: let the system's pip put a pip inside.
            commands.run([base, "-m", "venv", "--clear", "--without-pip", str(where.venv)])
            commands.run([base, "-m", "pip", "install", "--target", str(site_packages(where, commands)), "pip"])
        else:
            raise SetupError(
                f"{base} cannot make a virtual environment with pip in it: it has neither ensurepip nor pip. Install "
                "them (Debian and Ubuntu: the packages python3-venv and python3-pip), or name another interpreter: "
                "make PYTHON3=..."
            )
    if where.foreign_python:
        show_packages_of(where.foreign_python, where, commands)


def site_packages(where: Locations, commands: Commands) -> Path:
    """The folder that the environment's packages lie in."""
    return Path(folders_of(where.python, commands)[0])


def folders_of(python: Path, commands: Commands) -> list[str]:
    """The folders of an interpreter's packages, without repeats."""
    answer = commands.ask(python, PATHS)
    if answer is None:
        raise SetupError(f"{python} does not say where its packages are.")
    return list(dict.fromkeys(json.loads(answer)))


def show_packages_of(python: Path, where: Locations, commands: Commands) -> None:
    """Makes another interpreter's packages visible in the environment, so that nothing is installed into that one."""
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders_of(python, commands)]
    (site_packages(where, commands) / "comfyui_python.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
