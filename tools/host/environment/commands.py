"""Child processes of the set-up. What they print goes to a log; a failure shows the log's end."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ...locations import TOOLS, Locations
from .steps import SetupError

LINES_SHOWN = 25


@dataclass(frozen=True)
class Commands:
    """Runs interpreters, pip and the tools of this folder."""

    where: Locations

    @property
    def base_python(self) -> Path:
        """The interpreter that the virtual environment is made with."""
        return self.where.foreign_python or Path(sys.executable)

    @property
    def log(self) -> Path:
        return self.where.setup / "setup.log"

    def run(self, command: list[str], hint: str = "") -> None:
        """Runs a command with its output in the log; SetupError with the log's end and `hint` when it fails."""
        # A PYTHONPATH or a wish for user installs that holds elsewhere must not reach into the environment.
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        environment |= {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            status = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
        if status.returncode:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_SHOWN:]
            raise SetupError(
                f"`{' '.join(command[:6])} ...` ended with status {status.returncode}. {hint}\n"
                + "\n".join(f"    {line}" for line in lines)
                + f"\nThe whole log: {self.log}"
            )

    def pip(self, *arguments: str) -> None:
        """Runs the environment's pip."""
        hint = "Is the network reachable and the disk not full? Running it again goes on from here."
        self.run([str(self.where.python), "-m", "pip", *arguments], hint)

    def tool(self, module: str, *arguments: str) -> None:
        """Runs a module of tools/ in the environment."""
        self.run([str(self.where.python), str(TOOLS / "launch.py"), module, *arguments])

    def ask(self, python: Path, code: str) -> str | None:
        """What `python -c code` prints, stripped; None when it fails."""
        answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None

    def version_of(self, python: Path) -> str:
        """The interpreter's version, such as 3.11."""
        version = "{}.{}".format(*sys.version_info)
        if python != Path(sys.executable):
            version = self.ask(python, "import sys; print('{}.{}'.format(*sys.version_info))") or ""
        if not version:
            raise SetupError(f"{python} does not run as a Python interpreter.")
        return version
