"""A workflow in the form that is queued: {id: {inputs, class_type, _meta: {title}}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .graph import NOTE, Graph, Node, Output
from .node_schemas import Field, NodeSchema


class WorkflowError(ValueError):
    """A description does not fit ComfyUI's nodes."""


def api_form(graph: Graph, schemas: Mapping[str, NodeSchema]) -> dict[str, dict]:
    """The workflow as ComfyUI's page would queue it, in the page's order of inputs.

    WorkflowError: a class, an input or an output that ComfyUI does not have, or a required input without a link.
    """
    return {
        str(node.id): {
            "inputs": queued_inputs(node, schemas),
            "class_type": node.kind,
            "_meta": {"title": node.title},
        }
        for node in graph.nodes
        if node.kind != NOTE
    }


def queued_inputs(node: Node, schemas: Mapping[str, NodeSchema]) -> dict[str, Any]:
    """Widgets with their values, then links; a link to a widget stands in the widget's place."""
    fields = schema_of(node, schemas).fields
    queued = {field.name: widget_value(node, field) for field in fields if field.widget and field.queued}
    for field in fields:
        source = node.inputs.get(field.name)
        if isinstance(source, Output):
            queued[field.name] = [str(source.node.id), output_slot(source, schemas)]
        elif not field.widget and not field.optional:
            raise WorkflowError(f"{node.title} ({node.kind}): nothing is linked to the input {field.name}.")
    return queued


def schema_of(node: Node, schemas: Mapping[str, NodeSchema]) -> NodeSchema:
    """The schema of a node's class, which must have all inputs that the node gives."""
    if node.kind not in schemas:
        raise WorkflowError(f"{node.title}: ComfyUI has no node class {node.kind}.")
    schema = schemas[node.kind]
    known = {field.name: field for field in schema.fields}
    for name, value in node.inputs.items():
        if name not in known or not (known[name].widget or isinstance(value, Output)):
            takes = ", ".join(known)
            raise WorkflowError(f"{node.title} ({node.kind}): {name} cannot be {value!r}; the inputs are {takes}.")
    return schema


def widget_value(node: Node, field: Field) -> Any:
    """What a widget holds: the node's value, else the default, which a linked widget keeps too."""
    value = node.inputs.get(field.name, field.value)
    value = field.value if isinstance(value, Output) else value
    # JavaScript has one kind of number and writes 1.0 as 1.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def output_slot(source: Output, schemas: Mapping[str, NodeSchema]) -> int:
    """The position of an output among those of its node."""
    names = [name for name, _ in schema_of(source.node, schemas).outputs]
    name = names[0] if source.name is None and len(names) == 1 else source.name
    if names.count(name) != 1:
        raise WorkflowError(f"{source.node.title}: output {name!r} is not one of {', '.join(names) or 'none'}.")
    return names.index(name)
