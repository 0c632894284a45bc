"""Which Python packages are installed, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...locations import ROOT, Locations
from .commands import Commands

HERE = Path(__file__).parent
TORCH = frozenset({"torch", "torchvision", "torchaudio"})
# Their declared dependencies are hundreds of MB of media that only ComfyUI's template browser shows.
WITHOUT_DEPENDENCIES = frozenset({"comfyui-workflow-templates", "comfyui-embedded-docs"})
TEMPLATES = "comfyui-workflow-templates"
# Dependencies of the templates that are not media; older ones have no second.
TEMPLATE_PARTS = frozenset({f"{TEMPLATES}-core", f"{TEMPLATES}-json"})


@dataclass(frozen=True)
class Packages:
    """with_dependencies and without_dependencies: requirement lines; template_parts: see `install`."""

    with_dependencies: tuple[str, ...]
    without_dependencies: tuple[str, ...]
    template_parts: bool = False

    def texts(self) -> tuple[str, ...]:
        return (*self.with_dependencies, "--no-deps", *self.without_dependencies, str(self.template_parts))


def lines(file: Path) -> list[str]:
    """The requirement lines of a file, without comments."""
    stripped = (line.split(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def name(requirement: str) -> str:
    """The normalised name of a requirement line: `SQLAlchemy>=2; marker` gives `sqlalchemy`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]*", requirement)[0]).lower()


def wanted(where: Locations) -> Packages:
    """What the environment needs.

    * The pinned needs of the ComfyUI that is installed here; or
    * with a ComfyUI of the person's own, its requirements.txt, with this project's pins of torch kept; or
    * with an interpreter of the person's own, only what the tests add: torch and ComfyUI's needs are visible there.
    """
    common = [*lines(HERE / "requirements-test.txt"), *lines(ROOT / "requirements.txt")]
    torch = lines(HERE / "requirements-torch.txt")
    pinned_nodeps = lines(HERE / "requirements-nodeps.txt")
    if where.foreign_python:
        return Packages(tuple(common), ())
    if where.foreign_host is None:
        host = lines(HERE / "requirements-host.txt")
        return Packages((*torch, *host, *common), tuple(pinned_nodeps))
    theirs = lines(where.foreign_host / "requirements.txt")
    set_apart = TORCH | WITHOUT_DEPENDENCIES
    return Packages(
        (*torch, *(line for line in theirs if name(line) not in set_apart), "requests", *common),
        (
            *(line for line in pinned_nodeps if name(line) in TORCH),
            *(line for line in theirs if name(line) in WITHOUT_DEPENDENCIES),
        ),
        template_parts=any(name(line) == TEMPLATES for line in theirs),
    )


def install(packages: Packages, commands: Commands) -> None:
    """Installs the packages. With template_parts also the dependencies of the templates that are not media."""

    def install_lines(requirements: Sequence[str], *options: str) -> None:
        """One call of pip for all lines, so that they are resolved together."""
        if requirements:
            file = commands.where.setup / "requirements.txt"
            file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            commands.pip("install", *options, "-r", str(file))

    install_lines(packages.with_dependencies)
    install_lines(packages.without_dependencies, "--no-deps")
    if packages.template_parts:
        code = f"import importlib.metadata as m; print('\\n'.join(m.requires('{TEMPLATES}') or []))"
        needed = (commands.ask(commands.where.python, code) or "").splitlines()
        parts = [line for line in needed if name(line) in TEMPLATE_PARTS and ";" not in line]
        install_lines(parts, "--no-deps")
