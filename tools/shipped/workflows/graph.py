"""A workflow as it is described here: nodes, what goes into them, and how they are grouped on the canvas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NOTE = "MarkdownNote"
SMALLEST = (270, 0)


@dataclass(frozen=True)
class Output:
    """One output of a node, by the name that the node shows; None stands for its only one."""

    node: Node
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """A node. inputs: values of widgets, and an Output where something is linked; the rest keeps its default.

    size: width and height in pixels of the canvas; a node is never lower than the page allows.
    """

    id: int
    kind: str
    title: str
    inputs: Mapping[str, Any]
    size: tuple[int, int] = SMALLEST

    def __getitem__(self, output: str) -> Output:
        return Output(self, output)


@dataclass(frozen=True)
class Group:
    """A frame with a title around nodes, which are stacked from top to bottom."""

    title: str
    nodes: Sequence[Node]


@dataclass
class Graph:
    """Nodes in the order in which they were added, so that links only come from earlier ones.

    name: of its API form, and what the videos are called that it saves.
    title: of its file for ComfyUI's page, which shows it in its list of templates.
    columns: groups from left to right, those of a column stacked from top to bottom.
    """

    name: str
    title: str
    nodes: list[Node] = field(default_factory=list)
    columns: list[list[Group]] = field(default_factory=list)

    def add(self, kind: str, title: str, size: tuple[int, int] = SMALLEST, /, **inputs: Any) -> Node:
        """Adds a node. A Node among the inputs stands for its only output."""
        linked = {name: Output(value) if isinstance(value, Node) else value for name, value in inputs.items()}
        node = Node(len(self.nodes) + 1, kind, title, linked, size)
        self.nodes.append(node)
        return node

    def note(self, title: str, text: str, size: tuple[int, int]) -> Node:
        """Adds a note in Markdown; ComfyUI never sees it."""
        return self.add(NOTE, title, size, text=text)
