"""What saved workflows depend on: the page stores the values of a node's widgets by their place."""

from __future__ import annotations

import json
import pathlib

import pytest
from comfy_api.latest import io
from comfyui_stem.nodes.methods.seams.comfyui_versions import advanced
from comfyui_stem.tools.shipped.pages import schemas

# Since 0.2.0. A new field goes to the end of its node's list; nothing else in the file ever changes.
FROZEN = json.loads((pathlib.Path(__file__).parents[1] / "data" / "widgets.json").read_text())
SCHEMAS = {schema.node_id: schema for schema in schemas()}


def is_widget(field):
    return isinstance(field, io.WidgetInput) and not field.force_input


def widgets(schema):
    """Names of the widgets in the page's order: those of required inputs first."""
    names = []
    for optional in (False, True):
        for field in schema.inputs:
            if is_widget(field) and bool(field.optional) == optional:
                names.append(field.id)
                if getattr(field, "control_after_generate", None):
                    names.append("control_after_generate")
    return names


def test_widgets_keep_their_names_and_places():
    assert {node: widgets(schema) for node, schema in SCHEMAS.items()} == FROZEN


@pytest.mark.skipif(not advanced(), reason="this ComfyUI hides no widgets")
def test_a_person_sees_eight_widgets_at_most_and_the_others_come_after_them():
    for node, schema in SCHEMAS.items():
        ordered = sorted(schema.inputs, key=lambda field: bool(field.optional))
        hidden = [bool(field.advanced) for field in ordered if is_widget(field)]
        assert hidden == sorted(hidden) and hidden.count(False) <= 8, node


def test_prompts_are_dynamic_as_in_clip_text_encode_but_where_they_are_only_compared():
    dynamic = {
        (node, field.id)
        for node, schema in SCHEMAS.items()
        for field in schema.inputs
        if getattr(field, "dynamic_prompts", None)
    }
    prompts = {
        (node, field.id) for node, schema in SCHEMAS.items() for field in schema.inputs if field.id.endswith("prompt")
    }
    assert dynamic == {(node, name) for node, name in prompts if node != "STEMVideoMetrics"}
