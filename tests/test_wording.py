"""What users read is plain English: words that have been taken out do not come back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Translated word for word from another language, jargon of this project, or names that ComfyUI shows otherwise.
UNWANTED = (
    r"\banew\b|\bafresh\b",
    r"\bby turns\b",
    r"\bon a processor\b",
    r"\b(?<!there )(?<!There )is no (?:inversion|model|substitute|number)\b",
    r"\bthe \w+'s way\b",
    r"\botherwise than\b",
    r"\bbut for (?:rounding|the)\b",
    r"\blikeness (?:of|to)\b",
    r"\b(?:0|[Ee]mpty|auto) takes\b",
    r"\b(?:frames|numbers) a (?:second|token)\b|\bone a line\b",
    r"\bputs? back\b|\bput on it\b",
    r"\bfor itself\b",
    r"\bwith LoRA\b",
    r"\bbehind our back\b",
    r"\bof as many words\b",
    r"\b[Tt]ake (?:it|one|some) out\b|\bExchange the\b",
    r"\bPreview Any\b",
)
# Written by tools, from measurements and messages of the day on which they ran.
GENERATED = {"benchmarks.md", "faults.md", "quality.md"}
TEXTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *(file for file in sorted((ROOT / "docs").glob("*.md")) if file.name not in GENERATED),
    *sorted((ROOT / "locales" / "en").glob("*.json")),
    *sorted((ROOT / "workflows").glob("*.json")),
]
CODE = [file for folder in ("nodes", "stem_kernels") for file in sorted((ROOT / folder).rglob("*.py"))]


def texts_of(code: str) -> str:
    """The strings of a module that are not its documentation."""
    tree = ast.parse(code)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = (parent.body[0] for parent in ast.walk(tree) if isinstance(parent, documented) and parent.body)
    documentation = {id(node.value) for node in first if isinstance(node, ast.Expr)}
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return "\n".join(node.value for node in strings if id(node) not in documentation)


@pytest.mark.parametrize("pattern", UNWANTED)
def test_unwanted_words_do_not_come_back(pattern):
    read = {file: file.read_text(encoding="utf-8") for file in TEXTS}
    read |= {file: texts_of(file.read_text(encoding="utf-8")) for file in CODE}
    found = {str(file.relative_to(ROOT)): re.findall(pattern, text) for file, text in read.items()}
    assert {file: words for file, words in found.items() if words} == {}


def test_strings_are_read_and_documentation_is_not():
    code = '"""A."""\n\n\ndef f():\n    """B."""\n    raise ValueError("anew " f"by {1} turns")\n'
    assert "anew" in texts_of(code) and "B." not in texts_of(code)
