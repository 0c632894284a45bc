"""Where nodes and groups lie on the canvas, in its pixels: nothing overlaps, whatever the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .graph import Graph, Group, Node
from .node_schemas import NodeSchema

NODE_TITLE, SLOT, WIDGET, WIDGETS_MARGIN, NODE_MARGIN = 30, 20, 24, 8, 6
GROUP_TITLE, PADDING = 40, 20
BETWEEN_NODES, BETWEEN_GROUPS = 20, 60
# The page's newer rendering makes nodes higher by up to this share.
SLACK = 0.25


@dataclass(frozen=True)
class Box:
    """Left, top, width and height. A node's title bar lies above its box."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """Boxes of the nodes by id, and of the groups in the order of the graph's columns."""

    nodes: dict[int, Box]
    groups: list[tuple[Group, Box]]


def size_of(node: Node, schema: NodeSchema) -> tuple[int, int]:
    """A node's width and height: as described, but no lower than the page allows."""
    width, height = node.size
    widgets = sum(field.widget for field in schema.fields)
    sockets = max(len(schema.fields) - widgets, len(schema.outputs), 1)
    lowest = sockets * SLOT + NODE_MARGIN + (widgets * WIDGET + WIDGETS_MARGIN if widgets else 0)
    return width, max(height, lowest)


def arrange(graph: Graph, schemas: Mapping[str, NodeSchema]) -> Layout:
    """Places the graph's columns of groups from left to right."""
    layout = Layout({}, [])
    x = 0
    for column in graph.columns:
        y = right = 0
        for group in column:
            box = _place(group, x, y, schemas, layout.nodes)
            layout.groups.append((group, box))
            y, right = box.y + box.height + BETWEEN_GROUPS, max(right, box.x + box.width)
        x = right + BETWEEN_GROUPS
    return layout


def _place(group: Group, left: int, top: int, schemas: Mapping[str, NodeSchema], nodes: dict[int, Box]) -> Box:
    """Places a group's nodes and returns the group's box."""
    y, widest = top + GROUP_TITLE, 0
    for node in group.nodes:
        width, height = size_of(node, schemas[node.kind])
        nodes[node.id] = Box(left + PADDING, y + NODE_TITLE, width, height)
        y, widest = y + NODE_TITLE + round(height * (1 + SLACK)) + BETWEEN_NODES, max(widest, width)
    return Box(left, top, widest + 2 * PADDING, y - BETWEEN_NODES + PADDING - top)
