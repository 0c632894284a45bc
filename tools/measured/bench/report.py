"""docs/benchmarks.md from the rows of docs/benchmarks.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..markdown import rendered
from .results import run_of


def page(rows: Sequence[dict]) -> str:
    """The whole page; groups without rows are left out."""
    groups: dict[str, dict[tuple, list[dict]]] = {}
    for row in rows:
        groups.setdefault(row["group"], {}).setdefault(run_of(row), []).append(row)
    runs = {group: list(of_group.values()) for group, of_group in groups.items()}
    return rendered(Path(__file__).with_name("report.md.jinja"), {"named": _named}, runs=runs)


def _named(rows: Sequence[dict], name: str, **more: object) -> dict:
    """The row of this name with these values; the last where the same size was measured again."""
    wanted = {"name": name, **more}
    return [row for row in rows if wanted.items() <= row.items()][-1]
