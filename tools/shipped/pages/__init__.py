"""`make pages`: writes the help page of every node, and what ComfyUI's page shows in other languages, from the nodes.

Help pages are web/docs/<node>/<language>.md, their pictures web/docs/pictures/<node>.jpg. The English texts are those
of the nodes; locales/<language>/nodeDefs.json holds those of other languages and is written by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from ... import locations
from ...host import loaded_model

ENGLISH = "en"
DOCS = locations.ROOT / "web" / "docs"
LOCALES = locations.ROOT / "locales"


def definition(schema: Any) -> dict:
    """The texts of a node, in the form of ComfyUI's nodeDefs.json."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {
            field.id: {"name": field.display_name or field.id, "tooltip": field.tooltip} for field in schema.inputs
        },
        "outputs": {
            str(number): {"name": output.display_name or output.io_type, "tooltip": output.tooltip}
            for number, output in enumerate(schema.outputs)
        },
    }


def schemas() -> list[Any]:
    """The schema of every node, in the order in which the pack lists them. ComfyUI has to be on the module path."""
    name = "stem_pack_of_the_pages"
    spec = importlib.util.spec_from_file_location(
        name, locations.ROOT / "__init__.py", submodule_search_locations=[str(locations.ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

    async def nodes() -> list:
        return await (await module.comfy_entrypoint()).get_node_list()

    return [node.define_schema() for node in asyncio.run(nodes())]


def files() -> dict[Path, str]:
    """The content of every text that is generated, by its path."""
    from .page import page

    fields = {schema.node_id: schema for schema in schemas()}
    english = {node: definition(schema) for node, schema in fields.items()}
    found = {LOCALES / ENGLISH / "nodeDefs.json": json.dumps(english, indent=2, ensure_ascii=False) + "\n"}
    for folder in sorted(LOCALES.iterdir()):
        definitions = english if folder.name == ENGLISH else json.loads((folder / "nodeDefs.json").read_text("utf-8"))
        for node, texts in definitions.items():
            found[DOCS / node / f"{folder.name}.md"] = page(node, texts, fields[node], folder.name)
    return found


def main(arguments: list[str]) -> int:
    """Writes the texts and, if asked, the pictures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make pages", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", action="store_true", help="draw the pictures too, with the small model: minutes")
    options = parser.parse_args(arguments)
    loaded_model.prepare(pytorch_attention=True)
    if options.pictures:
        from .pictures import draw

        draw(DOCS / "pictures")
    (LOCALES / ENGLISH).mkdir(parents=True, exist_ok=True)
    for file, text in files().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    print(f"written: {DOCS.relative_to(locations.ROOT)} and {LOCALES.relative_to(locations.ROOT)}")
    return 0
