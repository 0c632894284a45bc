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
