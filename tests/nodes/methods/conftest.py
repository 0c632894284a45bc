"""What tests of several methods look at."""

from __future__ import annotations

import pytest
from comfyui_stem.nodes.methods.batching import frame_batches


@pytest.fixture
def calls(monkeypatch):
    """How many batches every call of the network had that was split."""
    found = []
    original = frame_batches.run_in_lockstep

    def counted(tasks):
        found.append(len(tasks))
        return original(tasks)

    monkeypatch.setattr(frame_batches, "run_in_lockstep", counted)
    return found


@pytest.fixture
def rows(loaded):
    """The rows of every call of the network."""
    found: list[int] = []
    first = loaded.model.model.diffusion_model.input_blocks[0][0]
    hook = first.register_forward_pre_hook(lambda _, inputs: found.append(len(inputs[0])))
    yield found
    hook.remove()
