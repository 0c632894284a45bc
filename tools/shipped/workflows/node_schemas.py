"""ComfyUI's nodes as its page shows them: which inputs are sockets, which are widgets, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .graph import NOTE

EMPTY = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
COMBO = "COMBO"
SEEDS = ("seed", "noise_seed")


@dataclass(frozen=True)
class Field:
    """An input of a node.

    widget: whether the page shows a widget for it; `value` is then what the widget holds at first.
    socket: whether something can be linked to it.
    queued: whether it goes to ComfyUI; the page has widgets of its own beside those.
    label: what the page shows in place of the name, if anything.
    """

    name: str
    type: str
    widget: bool = False
    value: Any = None
    optional: bool = False
    socket: bool = True
    queued: bool = True
    label: str | None = None


@dataclass(frozen=True)
class NodeSchema:
    """A class of nodes.

    fields: in the page's order.
    outputs: name and type.
    custom: whether a custom node pack has it, rather than ComfyUI.
    """

    display_name: str
    fields: tuple[Field, ...]
    outputs: tuple[tuple[str, str], ...] = ()
    custom: bool = False


# The button below a list of files, which the page saves like a widget with a value.
UPLOAD = Field("upload", "IMAGEUPLOAD", widget=True, value="image", queued=False)
# The page's own class, of which ComfyUI knows nothing.
NOTE_SCHEMA = NodeSchema("Markdown Note", (Field("text", "STRING", widget=True, value="", socket=False, queued=False),))


def read_schemas(object_info: Mapping[str, Mapping]) -> dict[str, NodeSchema]:
    """The schemas of all nodes by class. object_info: what ComfyUI answers under that name."""
    return {kind: read_schema(info) for kind, info in object_info.items()} | {NOTE: NOTE_SCHEMA}


def read_schema(info: Mapping[str, Any]) -> NodeSchema:
    """One entry of object_info; hidden inputs are left out."""
    fields: list[Field] = []
    upload: tuple[Field, ...] = ()
    for section in ("required", "optional"):
        for name in info["input_order"].get(section, ()):
            kind, *given = info["input"][section][name]
            options = given[0] if given else {}
            fields += _fields(name, kind, options, section == "optional")
            if options.get("video_upload"):
                upload = (UPLOAD,)
    # The page puts plain sockets first, then the widgets, each in the schema's order.
    ordered = sorted(fields, key=lambda field: field.widget)
    return NodeSchema(
        display_name=info["display_name"] or info["name"],
        fields=(*ordered, *upload),
        outputs=tuple(zip(info["output_name"], info["output"], strict=True)),
        custom=info["python_module"].startswith("custom_nodes."),
    )


def _fields(name: str, kind: str | list, options: Mapping[str, Any], optional: bool) -> Iterator[Field]:
    """An input, and the widget that the page adds to a seed."""
    choices = kind if isinstance(kind, list) else options.get("options", [])
    kind = COMBO if isinstance(kind, list) else kind
    if options.get("forceInput") or kind not in (COMBO, *EMPTY):
        yield Field(name, kind, optional=optional)
        return
    first = next(iter(choices), None) if kind == COMBO else EMPTY[kind]
    value, label = options.get("default", first), options.get("display_name")
    yield Field(name, kind, widget=True, value=value, optional=optional, label=label)
    if kind == "INT" and options.get("control_after_generate", name in SEEDS):
        # A shipped workflow gives the same result twice.
        yield Field("control_after_generate", COMBO, widget=True, value="fixed", socket=False, queued=False)
