"""Where the commands of this folder find the virtual environment, ComfyUI and the checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"
# The pack's folder among the custom nodes of a ComfyUI that is started here, and the packs that such a ComfyUI gets.
PACK = "ComfyUI-STEM"
# The trained small model, and the classifier that judges edits made with it.
TRAINED = ROOT / "assets" / "emoji_sd15.safetensors"
CLASSIFIER = ROOT / "assets" / "emoji_classifier.safetensors"
PACKS = {PACK: ROOT, "tiny_sd15": TOOLS / "host" / "tiny_sd15"}
# With the nodes that cause faults.
TEST_PACKS = {**PACKS, "fault_nodes": TOOLS / "robustness" / "fault_nodes"}


@dataclass(frozen=True)
class Locations:
    """Folders and interpreters, as the environment variables name them.

    setup: git-ignored folder of everything that is installed (STEM_SETUP_DIR, else .setup in the checkout).
    foreign_host: a person's own ComfyUI folder (COMFYUI_HOST), or None for the one that is unpacked into `setup`.
    foreign_python: the interpreter that runs it (COMFYUI_PYTHON), or None for that of the virtual environment.
    """

    setup: Path
    foreign_host: Path | None = None
    foreign_python: Path | None = None

    @property
    def venv(self) -> Path:
        return self.setup / "venv"

    @property
    def python(self) -> Path:
        """The virtual environment's interpreter, which runs the commands and the tests."""
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def host(self) -> Path:
        """The folder that holds ComfyUI's main.py."""
        return self.foreign_host or self.setup / "host"

    @property
    def host_python(self) -> Path:
        """The interpreter that runs ComfyUI."""
        return self.foreign_python or self.python

    @property
    def checkpoint(self) -> Path:
        """The generated tiny checkpoint."""
        return self.setup / "models" / "tiny.safetensors"


def from_environment(environment: Mapping[str, str] = os.environ) -> Locations:
    """The locations that STEM_SETUP_DIR, COMFYUI_HOST and COMFYUI_PYTHON name; an empty variable counts as unset."""

    def path(name: str) -> Path | None:
        value = environment.get(name)
        # absolute, but a symbolic link is kept: a virtual environment's interpreter is one
        return Path(os.path.abspath(os.path.expanduser(value))) if value else None

    return Locations(path("STEM_SETUP_DIR") or ROOT / ".setup", path("COMFYUI_HOST"), path("COMFYUI_PYTHON"))
