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
    words, title = WORDS[language], definition["display_name"]

    def row(texts: dict, *more: str) -> str:
        tooltip = texts["tooltip"].replace("|", "\\|").replace("\n", " ")
        return f"| {' | '.join([texts['name'], tooltip, *more])} |"

    known = {
        field: texts if texts["name"] == field else texts | {"name": f"{texts['name']} (`{field}`)"}
        for field, texts in definition["inputs"].items()
    }
    inputs = "\n".join(row(known[field.id], default_of(field, words["optional"])) for field in schema.inputs)
    outputs = "\n".join(row(texts) for texts in definition["outputs"].values())
    return f"""\
# {title}

{definition["description"]}

![{title}](pictures/{node}.jpg)

## {words["inputs"]}

{words["head"]}
| --- | --- | --- |
{inputs}

## {words["outputs"]}

{words["output head"]}
| --- | --- |
{outputs}

{words["more"]}: {LINKS}
"""


def default_of(field: Any, optional: str) -> str:
    """The default as the page shows it; `optional` where an input needs none."""
    default = getattr(field, "default", None)
    if default is None or default == "":
        return optional if field.optional else ""
    return f"`{default}`"
