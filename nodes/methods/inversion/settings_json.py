"""Settings as JSON and back, trusting nothing: a file may come from anyone."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


def to_json(settings: Any) -> dict:
    """A dataclass of numbers, texts, truth values and other such dataclasses."""
    return asdict(settings)


def from_json(kind: type, data: object, where: str) -> Any:
    """The dataclass `kind` from what `to_json` made of it.

    Raises:
        ValueError: a field is missing, unknown or of another type or range; `where` says in what.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} is no set of fields")
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    if set(data) != set(names):
        odd = sorted(set(map(str, data)) ^ set(names))
        raise ValueError(f"{where} has other fields than this version knows: {', '.join(odd)[:200]}")
    return kind(**{name: _value(hints[name], data[name], f"{where}.{name}") for name in names})


def _value(hint: Any, value: object, where: str) -> Any:
    if is_dataclass(hint):
        return from_json(hint, value, where)
    if get_origin(hint) is Literal:
        if value not in get_args(hint) or isinstance(value, bool):
            raise ValueError(f"{where} is {value!r:.50}, not one of {', '.join(map(str, get_args(hint)))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise ValueError(f"{where} is {value!r:.50}, not {hint.__name__}")
    if hint is int and value < 0:
        raise ValueError(f"{where} is {value}, below 0")
    return value
