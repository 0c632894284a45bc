"""Fields that only newer hosts know."""

from __future__ import annotations

from comfy_api.latest import io
from comfyui_stem.nodes import newer_fields
from comfyui_stem.nodes.newer_fields import advanced, found_by
from comfyui_stem.nodes.stem_bases import StemBases


def test_a_host_that_does_not_know_them_does_not_get_them(monkeypatch):
    class OldInput:
        def __init__(self, id, default=None): ...

    class OldSchema:
        def __init__(self, node_id, display_name=None): ...

    monkeypatch.setattr(newer_fields.io, "Int", type("Int", (), {"Input": OldInput}))
    monkeypatch.setattr(newer_fields.io, "Schema", OldSchema)
    assert advanced() == {} and found_by("a") == {}


def test_a_host_that_knows_them_gets_them(monkeypatch):
    class NewInput:
        def __init__(self, id, default=None, advanced=None): ...

    class NewSchema:
        def __init__(self, node_id, search_aliases=None): ...

    monkeypatch.setattr(newer_fields.io, "Int", type("Int", (), {"Input": NewInput}))
    monkeypatch.setattr(newer_fields.io, "Schema", NewSchema)
    assert advanced() == {"advanced": True}
    assert found_by("a", "b") == {"search_aliases": ["a", "b"]}


def test_nodes_are_accepted_by_this_host():
    schema = StemBases.define_schema()
    schema.validate()
    assert isinstance(schema, io.Schema)
