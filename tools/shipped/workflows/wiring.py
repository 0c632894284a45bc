"""Where links run: not behind groups that they have nothing to do with, but between and above them.

A link that would cross such a group turns in the gaps between columns, and runs above all groups from gap to gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .canvas_layout import BETWEEN_GROUPS, SLOT, WIDGET, Box, Layout
from .graph import Graph
from .node_schemas import NodeSchema

Point = tuple[int, int]
# Above the groups: the first line, and from one to the next.
_ABOVE, _LINE = 25, 20
# Nearer than this, a slot's height is as good as that of another.
_LEVEL = 40


@dataclass(frozen=True)
class Link:
    """A line between an output and an input, by node id and slot."""

    id: int
    source: tuple[int, int]
    target: tuple[int, int]
    type: str


@dataclass
class Reroute:
    """A point through which links of one output run, after that of `parent`."""

    id: int
    parent: int | None
    position: Point
    links: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Wiring:
    """The points that links run through, and the last one of each link that has any."""

    reroutes: list[Reroute]
    last: dict[int, int]


def wire(graph: Graph, schemas: Mapping[str, NodeSchema], layout: Layout, links: Sequence[Link]) -> Wiring:
    """Leads links around the groups that neither of their ends lies in."""
    columns = [_column(layout, groups) for groups in graph.columns]
    place = {node.id: number for number, column in enumerate(graph.columns) for group in column for node in group.nodes}
    group_of = {node.id: number for number, (group, _) in enumerate(layout.groups) for node in group.nodes}
    boxes = [box for _, box in layout.groups]
    ends = {link: slots(graph, schemas, layout, link) for link in links}
    led = []
    for link in links:
        own = {group_of[link.source[0]], group_of[link.target[0]]}
        if crosses(spline(*ends[link]), [box for number, box in enumerate(boxes) if number not in own]):
            led.append(link)
    sources = list(dict.fromkeys(link.source for link in led))
    known: dict[tuple, Reroute] = {}
    last = {}
    for link in led:
        lane, parent = sources.index(link.source), None
        edges = columns[place[link.source[0]]], columns[place[link.target[0]] - 1]
        points = _detour(*ends[link], *edges, lane, BETWEEN_GROUPS * (lane + 1) // (len(sources) + 1))
        for number in range(len(points)):
            key = link.source, tuple(points[: number + 1])
            reroute = known.setdefault(key, Reroute(len(known) + 1, parent, points[number]))
            reroute.links.append(link.id)
            parent = reroute.id
        last[link.id] = parent
    return Wiring(list(known.values()), last)


def slots(graph: Graph, schemas: Mapping[str, NodeSchema], layout: Layout, link: Link) -> tuple[Point, Point]:
    """Where a link leaves its output and arrives at its input, as the classic rendering draws them."""
    left, right = (layout.nodes[end[0]] for end in (link.source, link.target))
    fields = schemas[graph.nodes[link.target[0] - 1].kind].fields
    sockets = [entry for entry in fields if entry.socket]
    target = sockets[link.target[1]]
    if target.widget:
        rows = sum(not entry.widget for entry in sockets)
        above = [entry for entry in fields if entry.widget]
        down = rows * SLOT + (above.index(target) + 0.5) * WIDGET
    else:
        down = (sum(not entry.widget for entry in sockets[: link.target[1]]) + 0.7) * SLOT
    start = left.x + left.width, left.y + round((link.source[1] + 0.7) * SLOT)
    return start, (right.x, right.y + round(down))


def spline(start: Point, end: Point, points: int = 48) -> Iterator[tuple[float, float]]:
    """Points of the curve that the page draws from an output to an input."""
    reach = math.dist(start, end) / 4
    first, second = (start[0] + reach, start[1]), (end[0] - reach, end[1])
    for number in range(points + 1):
        t = number / points
        weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
        curve = (start, first, second, end)
        yield tuple(sum(w * point[axis] for w, point in zip(weights, curve, strict=True)) for axis in (0, 1))


def crosses(points: Iterator[tuple[float, float]], boxes: Sequence[Box]) -> bool:
    """Whether a line lies in one of the boxes."""
    return any(box.x < x < box.x + box.width and box.y < y < box.y + box.height for x, y in points for box in boxes)


def _column(layout: Layout, groups: Sequence) -> int:
    """The right edge of a column."""
    return max(box.x + box.width for group, box in layout.groups if group in groups)


def _detour(start: Point, end: Point, right: int, before: int, lane: int, aside: int) -> list[Point]:
    """The corners of a way from a slot to another.

    right: the edge of the source's column; before: that of the column in front of the target's. lane: counts the lines
    above the groups; aside: how far from a column's edge this one turns.
    """
    first, second, above = right + aside, before + aside, -_ABOVE - lane * _LINE
    if first == second:
        return [(first, start[1]), (first, end[1])]
    down = [] if abs(above - end[1]) < _LEVEL else [(second, end[1])]
    return [(first, start[1]), (first, above), (second, above), *down]
