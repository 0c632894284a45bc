"""Runs a module of this folder as part of the pack: `python tools/launch.py demo --help`.

The modules can then import each other, and stem_kernels, relatively, and the checkout never lands on sys.path, where
its `nodes` would hide the host's. Only the standard library is used here, and no syntax that an old Python lacks.
"""

import importlib
import os
import sys
import types

TOOLS = os.path.dirname(os.path.abspath(__file__))
MINIMUM = (3, 10)


def register_pack():
    """Makes the checkout importable as `comfyui_stem`, whatever its folder is called, without running its __init__."""
    pack = types.ModuleType("comfyui_stem")
    pack.__path__ = [os.path.dirname(TOOLS)]
    sys.modules["comfyui_stem"] = pack


def main():
    if sys.version_info < MINIMUM:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            "Python {} runs this, but ComfyUI and this pack need Python {}.{} or newer. "
            "Name a newer one: make PYTHON3=python3.11 ...".format(found, *MINIMUM)  # noqa: UP032
        )
    if len(sys.argv) < 2:
        sys.exit("usage: python tools/launch.py MODULE [ARGUMENT ...]")
    if sys.path and os.path.abspath(sys.path[0]) == TOOLS:
        del sys.path[0]
    register_pack()
    module = importlib.import_module("comfyui_stem.tools." + sys.argv[1])
    sys.exit(module.main(sys.argv[2:]))


if __name__ == "__main__":
    main()
