"""A help page in Markdown."""

from __future__ import annotations

from typing import Any

# Headings and words by language.
WORDS = {
    "en": {
        "inputs": "Inputs",
        "outputs": "Outputs",
        "head": "| name | meaning | default |",
        "output head": "| name | meaning |",
        "optional": "optional",
        "more": "More",
    },
    "zh": {
        "inputs": "输入",
        "outputs": "输出",
        "head": "| 名称 | 含义 | 默认值 |",
        "output head": "| 名称 | 含义 |",
        "optional": "可选",
        "more": "更多",
    },
}
LINKS = "[STEM Inversion](https://github.com/stem-inversion/ComfyUI-STEM)"


def page(node: str, definition: dict, schema: Any, language: str) -> str:
    """The page of a node; `schema` has the defaults, `definition` the texts in the page's language."""
    words = WORDS[language]
    inputs = [
        f"| {definition['inputs'][field.id]['name']} | {_cell(definition['inputs'][field.id]['tooltip'])} "
        f"| {_default(field, words)} |"
        for field in schema.inputs
    ]
    outputs = [f"| {output['name']} | {_cell(output['tooltip'])} |" for output in definition["outputs"].values()]
    return "\n".join(
        [
            f"# {definition['display_name']}",
            "",
            definition["description"],
            "",
            f"![{definition['display_name']}](pictures/{node}.jpg)",
            "",
            f"## {words['inputs']}",
            "",
            words["head"],
            "| --- | --- | --- |",
            *inputs,
            "",
            f"## {words['outputs']}",
            "",
            words["output head"],
            "| --- | --- |",
            *outputs,
            "",
            f"{words['more']}: {LINKS}",
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _default(field: Any, words: dict[str, str]) -> str:
    default = getattr(field, "default", None)
    if default is None or default == "":
        return words["optional"] if field.optional else ""
    return f"`{default}`"
