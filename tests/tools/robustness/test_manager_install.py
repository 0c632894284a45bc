"""What `make manager` shows of the set-up's packages: the host's needs, and none that only the pack has."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

from comfyui_stem.tools import locations
from comfyui_stem.tools.host.environment.packages import lines, name
from comfyui_stem.tools.robustness.manager_install import closure, show


def test_what_a_package_needs_is_shown_with_it_as_far_as_it_is_installed():
    found = closure(["kornia>=0.7.1", "is-not-installed", "greenlet; python_version < '3'"])
    assert {"kornia", "torch", "sympy"} <= found
    assert not {"is-not-installed", "greenlet"} & found


def test_what_only_the_pack_needs_is_not_shown():
    found = closure(lines(locations.from_environment().host / "requirements.txt"))
    assert {"torch", "numpy", "av"} <= found
    ours = {name(line) for line in lines(locations.ROOT / "requirements.txt")}
    assert {"matplotlib", "opencv-python-headless"} <= ours - found


def test_a_package_that_is_shown_can_be_imported_from_there_and_pip_sees_it(tmp_path):
    show(["einops"], tmp_path / "shown")
    code = "import importlib.metadata; import einops; print(einops.__file__, importlib.metadata.version('einops'))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "shown")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(tmp_path / "shown" / "einops" / "__init__.py"),
        importlib.metadata.version("einops"),
    ]
