"""python custom_nodes/<this pack>/batch run JOBS WORKFLOW OUT: many clips, on one machine or on a Ray cluster."""

import importlib
import os
import sys
import types


def _pack() -> str:
    """Makes the folder above importable without running its __init__, which wants to be inside ComfyUI."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    pack = types.ModuleType("stem_inversion")
    pack.__path__ = [os.path.dirname(here)]
    sys.modules["stem_inversion"] = pack
    return "stem_inversion.batch.commands"


if __name__ == "__main__":
    sys.exit(importlib.import_module(_pack()).main(sys.argv[1:]))
