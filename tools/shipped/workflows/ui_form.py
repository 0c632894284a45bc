"""A workflow in the form that a person opens: LiteGraph's JSON, version 0.4."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import common_nodes
from .api_form import output_slot, schema_of, widget_value
from .canvas_layout import Box, arrange
from .graph import NOTE, Graph, Group, Node, Output
from .node_schemas import Field, NodeSchema
from .wiring import Link, wire

OPTIONAL_SHAPE = 7
NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}
GROUP_COLOUR, GROUP_FONT = "#3f789e", 24
# How the page shows a workflow that it opens: the beginning, large enough to read.
VIEW = {"scale": 0.8, "offset": [110, 150]}
# What the page offers to download where it is missing.
CHECKPOINT = {
    "name": common_nodes.CHECKPOINT,
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    f"{common_nodes.CHECKPOINT}?download=true",
    "directory": "checkpoints",
}


@dataclass(frozen=True)
class Registered:
    """What a node registry knows a pack by: `cnr_id` and version."""

    cnr_id: str
    version: str


def ui_form(graph: Graph, schemas: Mapping[str, NodeSchema], comfyui: Registered, pack: Registered) -> dict:
    """The workflow as ComfyUI's page would save it. comfyui, pack: where its nodes and the custom ones come from.

    WorkflowError: as for `api_form`.
    """
    layout, links = arrange(graph, schemas), links_of(graph, schemas)
    wiring = wire(graph, schemas, layout, links)
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, graph.name)),
        "revision": 0,
        "last_node_id": len(graph.nodes),
        "last_link_id": len(links),
        "nodes": [
            node_form(node, schemas[node.kind], layout.nodes[node.id], links, comfyui, pack) for node in graph.nodes
        ],
        "links": [[link.id, *link.source, *link.target, link.type] for link in links],
        "groups": [group_form(number, group, box) for number, (group, box) in enumerate(layout.groups, 1)],
        "config": {},
        "extra": {
            "ds": VIEW,
            "reroutes": [
                {
                    "id": one.id,
                    **({"parentId": one.parent} if one.parent else {}),
                    "pos": list(one.position),
                    "linkIds": one.links,
                }
                for one in wiring.reroutes
            ],
            "linkExtensions": [{"id": link, "parentId": last} for link, last in wiring.last.items()],
        },
        "version": 0.4,
    }


def links_of(graph: Graph, schemas: Mapping[str, NodeSchema]) -> list[Link]:
    """All links, numbered in the order of the nodes that they lead to."""
    links: list[Link] = []
    for node in graph.nodes:
        for slot, field in enumerate(sockets_of(schema_of(node, schemas))):
            source = node.inputs.get(field.name)
            if isinstance(source, Output):
                output = output_slot(source, schemas)
                kind = schemas[source.node.kind].outputs[output][1]
                links.append(Link(len(links) + 1, (source.node.id, output), (node.id, slot), kind))
    return links


def sockets_of(schema: NodeSchema) -> list[Field]:
    """The inputs that something can be linked to; widgets are among them."""
    return [field for field in schema.fields if field.socket]


def node_form(
    node: Node, schema: NodeSchema, box: Box, links: list[Link], comfyui: Registered, pack: Registered
) -> dict[str, Any]:
    """One entry of "nodes"."""
    registered = pack if schema.custom else comfyui
    arriving = {link.target[1]: link.id for link in links if link.target[0] == node.id}
    inputs = [
        {
            "localized_name": field.label or field.name,
            "name": field.name,
            **({"shape": OPTIONAL_SHAPE} if field.optional else {}),
            "type": field.type,
            **({"widget": {"name": field.name}} if field.widget else {}),
            "link": arriving.get(slot),
        }
        for slot, field in enumerate(sockets_of(schema))
    ]
    outputs = []
    for slot, (name, kind) in enumerate(schema.outputs):
        leaving = [link.id for link in links if link.source == (node.id, slot)]
        outputs.append({"localized_name": name, "name": name, "type": kind, "links": leaving or None})
    return {
        "id": node.id,
        "type": node.kind,
        "pos": [box.x, box.y],
        "size": [box.width, box.height],
        "flags": {},
        "order": node.id - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        # The page leaves out a title that is the class's own.
        **({"title": node.title} if node.title != schema.display_name else {}),
        "properties": {
            "Node name for S&R": node.kind,
            "cnr_id": registered.cnr_id,
            "ver": registered.version,
            **({"models": [CHECKPOINT]} if node.kind == "CheckpointLoaderSimple" else {}),
        },
        "widgets_values": [widget_value(node, field) for field in schema.fields if field.widget],
        **(NOTE_COLOURS if node.kind == NOTE else {}),
    }


def group_form(number: int, group: Group, box: Box) -> dict[str, Any]:
    """One entry of "groups", the frames around nodes."""
    return {
        "id": number,
        "title": group.title,
        "bounding": [box.x, box.y, box.width, box.height],
        "color": GROUP_COLOUR,
        "font_size": GROUP_FONT,
        "flags": {},
    }
