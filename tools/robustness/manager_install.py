"""`make manager`: installs the pack by ComfyUI-Manager's own command where only the host's needs are, and runs it.

The Manager gets a ComfyUI of its own and a fresh virtual environment, both in a temporary folder. The environment shows
what the host's requirements.txt asks for and nothing else, so a requirement that the pack forgot to list is missing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

from ...batch.comfyui.client import HostError
from ...batch.comfyui.process import HostProcess, device_arguments, link
from .. import locations
from ..demo import CLIP
from ..demo.workflow import Wish
from ..host.environment.commands import Commands
from ..host.environment.packages import TEMPLATES, lines, name
from ..host.environment.steps import SetupError
from ..host.environment.virtual_environment import create, site_packages
from ..locations import Locations
from .soak import prompt_of

MANAGER = "comfyui-manager==4.3"
# Beyond the requirements.txt of the host: it imports `requests`, and the templates' media are left out of the set-up.
ALSO_OF_THE_HOST = ("requests", f"{TEMPLATES}-core")
# Parts of a person's own ComfyUI that need not be copied.
LEFT_OUT = (".git", "custom_nodes", "input", "models", "output", "temp", "user", "venv", ".venv")


def closure(requirements: Iterable[str]) -> set[str]:
    """Normalised names of the distributions that are installed here for these requirements and for theirs."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        wanted = waiting.pop()
        if name(wanted.name) in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            distribution = importlib.metadata.distribution(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name(wanted.name))
        waiting += [Requirement(line) for line in distribution.requires or ()]
    return found


def show(distributions: Iterable[str], folder: Path) -> None:
    """Links what these distributions have put beside each other into `folder`."""
    folder.mkdir()
    for wanted in distributions:
        distribution = importlib.metadata.distribution(wanted)
        beside = {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for entry in beside:
            source = Path(distribution.locate_file(entry))
            if source.exists():
                link(source, folder / entry)


def installed(where: Locations, commands: Commands) -> dict[str, str]:
    """Versions of the distributions that the environment's interpreter sees."""
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}))"
    )
    return json.loads(commands.ask(where.python, code) or "{}")


def prepare(folder: Path, ours: Locations) -> tuple[Locations, Commands]:
    """A ComfyUI in `folder`, and an environment with its needs and the Manager."""
    where = Locations(folder, foreign_host=folder / "ComfyUI")
    commands = Commands(where)
    shutil.copytree(ours.host, where.host, ignore=lambda path, _: LEFT_OUT if Path(path) == ours.host else ())
    (where.host / "custom_nodes").mkdir()
    create(where, commands)
    needed = closure([*lines(where.host / "requirements.txt"), *ALSO_OF_THE_HOST])
    show(needed, folder / "host_packages")
    (site_packages(where, commands) / "host_packages.pth").write_text(f"{folder / 'host_packages'}\n")
    commands.pip("install", MANAGER)
    return where, commands


def install(where: Locations) -> str:
    """Lets the Manager install the last commit of this checkout; returns what it said.

    HostError when the pack is not there afterwards: the Manager's exit status does not tell.
    """
    repository = where.setup / f"{locations.PACK}.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(locations.ROOT), str(repository)], check=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        # the Manager takes no URL without a server's name
        [str(where.python), "-m", "cm_cli", "install", f"file://localhost{repository.as_posix()}"],
        env=environment | {"COMFYUI_PATH": str(where.host), "PIP_USER": "0", "COLUMNS": "300"},
        cwd=where.setup,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode or "[INSTALLED]" not in said:
        raise HostError(f"ComfyUI-Manager did not install the pack (status {done.returncode}). It said:\n{said}")
    return said


def run(where: Locations, checkpoint: Path) -> None:
    """Starts the host with what the Manager has installed, and runs a workflow. HostError when a node is missing."""
    packs = {locations.PACK: where.host / "custom_nodes" / locations.PACK, "tiny_sd15": locations.PACKS["tiny_sd15"]}
    process = HostProcess(
        where.host, where.host, where.python, packs, device_arguments(), {"checkpoints": [checkpoint]}
    )
    with process as host:
        served = {
            node
            for node, info in host.client.object_info().items()
            if info.get("python_module", "").endswith(locations.PACK)
        }
        described = json.loads((locations.ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
        if served != described.keys():
            raise HostError(f"These nodes are missing or unknown: {', '.join(sorted(served ^ described.keys()))}.")
        print(f"{len(served)} nodes are served, and no import failed.")
        result = host.client.run(prompt_of(host.client, Wish(), 0, host.client.upload(CLIP)), timeout=600)
        print(f"A TokenFlow edit ended as: {result.status}.")


def report(before: dict[str, str], after: dict[str, str], said: str) -> None:
    """Prints what the Manager ran, and what that did to the environment. HostError when it touched the host's needs."""
    print(*(line.strip() for line in said.splitlines() if "EXECUTE" in line or "skip" in line), sep="\n")
    print("added:", ", ".join(f"{one} {after[one]}" for one in sorted(after.keys() - before.keys())) or "nothing")
    if changed := [
        f"{one} {version} -> {after.get(one)}" for one, version in before.items() if after.get(one) != version
    ]:
        raise HostError(f"The requirements of the pack have changed packages of the host: {', '.join(changed)}.")


def main(arguments: list[str]) -> int:
    """Installs, compares the environment before and after, runs; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make manager", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    ours = locations.from_environment()
    try:
        with tempfile.TemporaryDirectory(prefix="stem-manager-", ignore_cleanup_errors=True) as folder:
            where, commands = prepare(Path(folder).resolve(), ours)
            before = installed(where, commands)
            said = install(where)
            report(before, installed(where, commands), said)
            run(where, ours.checkpoint)
    except (HostError, SetupError) as error:
        print(error)
        return 1
    return 0
