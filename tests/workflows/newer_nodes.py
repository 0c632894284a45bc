"""Core nodes of newer hosts, which have other widgets than the shipped workflows give values for."""

from __future__ import annotations

from collections.abc import Mapping

from comfyui_stem.tools.shipped.workflows.node_schemas import NodeSchema, read_schemas


def newer_nodes(object_info: Mapping[str, Mapping], api: Mapping[str, Mapping]) -> set[str]:
    """The host's own classes in a workflow in API form that have other widgets there. The host still runs them."""
    schemas = read_schemas(object_info)
    return {node["class_type"] for node in api.values() if _differs(schemas[node["class_type"]], node["inputs"])}


def _differs(schema: NodeSchema, inputs: Mapping[str, object]) -> bool:
    widgets = {field.name for field in schema.fields if field.widget and field.queued}
    values = {name for name, value in inputs.items() if not isinstance(value, list)}
    return not schema.custom and not values <= widgets <= inputs.keys()
