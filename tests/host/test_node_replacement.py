"""Workflows that name a node as it was once called, in hosts that can replace nodes and in those that cannot."""

from __future__ import annotations

import numpy as np
import pytest
from comfy_api.latest import io
from comfyui_stem.batch.comfyui.client import HostError
from comfyui_stem.tools.demo.pictures import decode

pytestmark = pytest.mark.host
replaces = hasattr(io, "NodeReplace")


def graph(kind: str, output: int, **inputs) -> dict[str, dict]:
    """Two videos of one colour into a node of this kind, of which an output is saved; in API form."""

    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}

    return {
        "1": node("EmptyImage", width=64, height=48, batch_size=3, color=0x804020),
        "2": node("EmptyImage", width=64, height=48, batch_size=3, color=0x208040),
        "3": node(kind, **inputs),
        "4": node("PreviewImage", images=["3", output]),
    }


OLD = graph("STEMOldExample", 0, before=["1", 0], after=["2", 0], place=0.25)
NEW = graph("STEMCompareVideos", 1, first=["1", 0], second=["2", 0], column=0.25, labels="a, b")


def pictures(host, prompt):
    found = host.run(prompt, timeout=300).outputs["4"]["images"]
    return decode([host.view(file) for file in found])


@pytest.mark.skipif(not replaces, reason="this host cannot replace nodes")
def test_a_node_by_its_old_name_runs_as_what_it_is_called_now(host):
    (offered,) = host.get_json("/node_replacements")["STEMOldExample"]
    assert offered["new_node_id"] == "STEMCompareVideos"
    old, new = pictures(host, OLD), pictures(host, NEW)
    assert len(old) == len(new) == 1 and np.array_equal(*old, *new)


@pytest.mark.skipif(replaces, reason="this host can replace nodes")
def test_a_host_that_cannot_replace_nodes_names_the_old_one_and_has_all_the_others(host):
    with pytest.raises(HostError, match="STEMOldExample"):
        host.run(OLD, timeout=300)
    assert len(pictures(host, NEW)) == 1
