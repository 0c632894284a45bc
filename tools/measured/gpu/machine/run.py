"""Runs `make gpu` on a machine without a package index, from the folder .setup/gpu of a checkout.

What that machine lacks is unpacked into a folder of its own, which goes when all is done. This needs the standard
library alone.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


def main() -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows, the page and the log")
    parser.add_argument("--minutes", type=float, default=8, help="what may not fit into them is left out")
    parser.add_argument("--smoke", action="store_true", help="all of it with two small frames, on a CPU too")
    options = parser.parse_args()
    out = options.out.resolve()
    with tempfile.TemporaryDirectory(prefix="stem-gpu-") as work:
        with tarfile.open(HERE / "packed.tar.xz") as archive:
            archive.extractall(work, filter="data")
        added = {
            "PYTHONPATH": os.pathsep.join([f"{work}/packages", str(HERE / "stand_ins")]),
            "COMFYUI_HOST": f"{work}/comfyui",
            "STEM_SETUP_DIR": f"{work}/setup",
            "PYTHONUNBUFFERED": "1",
        }
        minutes = options.minutes - (time.monotonic() - started) / 60
        launch = [sys.executable, str(CHECKOUT / "tools" / "launch.py"), "measured.gpu"]
        where = ["--output", str(out), "--log", str(out / "gpu.log"), "--minutes", str(minutes)]
        smoke = ["--smoke"] if options.smoke else []
        return subprocess.run([*launch, *where, *smoke], env={**os.environ, **added}).returncode


if __name__ == "__main__":
    sys.exit(main())
