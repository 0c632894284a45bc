"""The memory that a running ComfyUI uses, on its accelerator too."""

from __future__ import annotations

import pytest
from comfyui_stem.batch.comfyui.memory import Memory


class Host:
    """A ComfyUI whose GPU reports these bytes one after the other; an exception is raised."""

    def __init__(self, *reserved, command=("python", "main.py")):
        self.reserved, self.command, self.client = list(reserved), command, self

    def peak_memory_mb(self):
        return 1234.56

    def system_stats(self):
        now = self.reserved.pop(0)
        if isinstance(now, Exception):
            raise now
        return {"devices": [{"torch_vram_total": now}]}


def test_the_largest_that_was_seen_is_kept_also_when_an_answer_is_missing():
    memory = Memory(Host(3_000_000, 8_040_000, ConnectionError("gone"), 2_000_000))
    for _ in range(4):
        memory.look()
    assert memory.as_dict() == {"peak_memory_mb": 1234.6, "device_memory_mb": 8.0}


@pytest.mark.parametrize("command", [("python", "main.py", "--cpu"), ("python", "main.py")])
def test_without_a_gpu_there_is_no_memory_of_one(command):
    memory = Memory(Host(0, command=command))
    memory.look()
    assert memory.as_dict() == {"peak_memory_mb": 1234.6}
    assert ("--cpu" in command) == (memory.host.reserved == [0])
