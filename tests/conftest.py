"""Makes the pack importable as `comfyui_stem` and puts a real ComfyUI host on the path, without starting it."""

from __future__ import annotations

import os
import pathlib
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOST = pathlib.Path(os.environ.get("COMFYUI_HOST") or ROOT / ".setup" / "host").resolve()
if not (HOST / "main.py").is_file():
    raise RuntimeError(
        f"No ComfyUI host at {HOST}: run `make setup`, or set COMFYUI_HOST to a folder that holds main.py."
    )

# The host comes first: `import nodes` must mean the host's module even when the checkout is the working directory.
sys.path.insert(0, str(HOST))

# The checkout as a package whatever its folder is called, without running its __init__.py.
package = types.ModuleType("comfyui_stem")
package.__path__ = [str(ROOT)]
sys.modules["comfyui_stem"] = package

import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()
