"""Commands in a network that holds this machine's loopback interface alone.

Nothing goes out, and nothing comes in: Ray takes the machine's own address even where 127.0.0.1 is named.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ALONE = ["unshare", "--net", "--", "bash", "-c", 'ip link set lo up && exec "$@"', "alone"]


def start(*arguments: object, program: list) -> subprocess.Popen:
    """A Python program with its output in a pipe; the test is skipped where there are no such networks."""
    if not _can_be():
        pytest.skip("this machine does not allow network namespaces")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(
        [*ALONE, sys.executable, *map(str, program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen, seconds: float = 120) -> str:
    """What it says until it ends; it is killed if that takes longer."""
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        process.kill()


def _can_be() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
