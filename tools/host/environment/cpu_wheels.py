"""Lets torchvision and torchaudio be imported beside a torch without CUDA.

The package index carries both as builds for CUDA. Beside a CPU torch their compiled parts cannot be loaded. Nothing
that ComfyUI does for this project calls those parts, but both packages must be importable for it to start. No kernel is
faked: whoever calls one is still told that it is missing. A build that imports as it is, is left as it is.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

MARK = "# Declared for a torch without CUDA by tools/host/environment/cpu_wheels.py"
# torchvision registers shape functions for these two operators even without its compiled part, which declares them.
SCHEMAS = f"""

{MARK}
if not _has_ops():
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def importable(package: str) -> str | None:
    """None when a fresh interpreter imports the package, else the last line of the error."""
    run = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    return None if run.returncode == 0 else (run.stderr.strip().splitlines() or ["no message"])[-1]


def declare_torchvision_operators(site_packages: Path) -> None:
    """Appends the declarations to torchvision's extension module, once."""
    module = site_packages / "torchvision" / "extension.py"
    text = module.read_text(encoding="utf-8")
    if MARK not in text:
        module.write_text(text + SCHEMAS, encoding="utf-8")


def remove_torchaudio_libraries(site_packages: Path) -> None:
    """Removes torchaudio's compiled part: without one the package is plain Python, with an unloadable one it raises."""
    for library in (site_packages / "torchaudio" / "lib").glob("*.so"):
        library.unlink()


REPAIRS = {"torchvision": declare_torchvision_operators, "torchaudio": remove_torchaudio_libraries}


def main(arguments: list[str]) -> int:
    """Repairs what does not import, in the running interpreter's environment; 1 when that does not help."""
    site_packages = Path(sysconfig.get_paths()["purelib"])
    for package, repair in REPAIRS.items():
        if importable(package) is None:
            continue
        repair(site_packages)
        if error := importable(package):
            print(f"{package} cannot be imported beside this torch: {error}")
            return 1
    return 0
