"""What only newer hosts know: used there, left out elsewhere."""

from __future__ import annotations

import asyncio

import comfy.model_management
from comfy_api.latest import io
from comfyui_stem.nodes.methods.seams import comfyui_versions
from comfyui_stem.nodes.methods.seams.comfyui_versions import (
    advanced,
    essential,
    found_by,
    free_memory,
    register_replacements,
)
from comfyui_stem.nodes.stem_bases import StemBases


def test_a_host_that_does_not_know_them_does_not_get_them(monkeypatch):
    class OldInput:
        def __init__(self, id, default=None): ...

    class OldSchema:
        def __init__(self, node_id, display_name=None): ...

    monkeypatch.setattr(comfyui_versions.io, "Int", type("Int", (), {"Input": OldInput}))
    monkeypatch.setattr(comfyui_versions.io, "Schema", OldSchema)
    assert advanced() == {} and found_by("a") == {} and essential() == {}


def test_a_host_that_knows_them_gets_them(monkeypatch):
    class NewInput:
        def __init__(self, id, default=None, advanced=None): ...

    class NewSchema:
        def __init__(self, node_id, search_aliases=None, essentials_category=None): ...

    monkeypatch.setattr(comfyui_versions.io, "Int", type("Int", (), {"Input": NewInput}))
    monkeypatch.setattr(comfyui_versions.io, "Schema", NewSchema)
    assert advanced() == {"advanced": True}
    assert found_by("a", "b") == {"search_aliases": ["a", "b"]}
    assert essential() == {"essentials_category": "Video Tools"}


def test_nodes_are_accepted_by_this_host():
    schema = StemBases.define_schema()
    schema.validate()
    assert isinstance(schema, io.Schema)


def test_a_host_that_cannot_replace_nodes_is_not_asked_to(monkeypatch):
    monkeypatch.delattr(comfyui_versions.io, "NodeReplace", raising=False)
    asyncio.run(register_replacements([{"old_node_id": "Old", "new_node_id": "New"}]))


def test_the_free_memory_is_what_the_patcher_of_the_network_says_and_else_what_the_host_says(monkeypatch):
    class NewPatcher:
        def get_free_memory(self, device):
            return 7.0 if device == "cpu" else 0.0

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 3.0 if device == "cpu" else 0.0)
    assert free_memory(NewPatcher(), "cpu") == 7.0
    assert free_memory(object(), "cpu") == free_memory(None, "cpu") == 3.0
