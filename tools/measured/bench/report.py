"""docs/benchmarks.md from the rows of docs/benchmarks.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .results import run_of


def page(rows: Sequence[dict]) -> str:
    """The whole page; groups without rows are left out."""
    groups: dict[str, dict[tuple, list[dict]]] = {}
    for row in rows:
        groups.setdefault(row["group"], {}).setdefault(run_of(row), []).append(row)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["named"] = _named
    runs = {group: list(of_group.values()) for group, of_group in groups.items()}
    return environment.get_template("report.md.jinja").render(runs=runs)


def _named(rows: Sequence[dict], name: str, **more: object) -> dict:
    """The row of this name with these values; the last where the same size was measured again."""
    wanted = {"name": name, **more}
    return [row for row in rows if wanted.items() <= row.items()][-1]
