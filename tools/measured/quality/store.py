"""Results on disk, one JSON object a line, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PATTERN = "results*.jsonl"
# Of the numbers that are published: far below any spread.
DIGITS = 6


class Store:
    """A folder of results. Every process appends to a file of its own, and all of them are read.

    `published` is a file of results from elsewhere, which are read first; None for none.
    """

    def __init__(self, folder: Path, writer: str = "", published: Path | None = None) -> None:
        self.folder = folder
        self.file = folder / f"results{writer}.jsonl"
        self.published = published
        self._elsewhere = _read([published]) if published is not None and published.is_file() else {}

    def load(self) -> dict[str, dict]:
        """All results by key. A line that a killed process left unfinished is passed over."""
        return self._elsewhere | _read(sorted(self.folder.glob(PATTERN)))

    def add(self, key: str, result: Mapping) -> None:
        """Appends a result."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = _line(key, result)
        with self.file.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):
                line = "\n" + line
            file.write(line.encode())

    def publish(self, keys: Iterable[str]) -> None:
        """Adds the results of `keys` that are there to `published`, in the place of any that it had of them."""
        results = self.load()
        wanted = dict.fromkeys(key for key in (*self._elsewhere, *keys) if key in results)
        self.published.parent.mkdir(parents=True, exist_ok=True)
        self.published.write_text("".join(_line(key, rounded(results[key])) for key in wanted), encoding="utf-8")


def _read(files: Iterable[Path]) -> dict[str, dict]:
    found = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                found[record["key"]] = record["result"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    return found


def _line(key: str, result: Mapping) -> str:
    return json.dumps({"key": key, "result": result}, separators=(",", ":")) + "\n"


def rounded(what: Any) -> Any:
    """The same with every float to DIGITS digits, in lists and mappings of any depth."""
    if isinstance(what, float):
        return float(f"{what:.{DIGITS}g}")
    if isinstance(what, Mapping):
        return {key: rounded(value) for key, value in what.items()}
    return [rounded(value) for value in what] if isinstance(what, list) else what


def digest(what: object) -> str:
    """A short fingerprint of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:20]


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    found = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def code_digest(files: Iterable[Path], root: Path) -> str:
    """A fingerprint of what Python files below `root` do: comments, docstrings and layout change nothing."""
    trees = []
    for file in sorted(files):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        trees.append([file.relative_to(root).as_posix(), ast.dump(tree)])
    return digest(trees)


def _ends_a_line(file) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"
