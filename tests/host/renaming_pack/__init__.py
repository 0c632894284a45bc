"""A pack that gives Compare Videos an old name, through the function that our pack registers its own old names with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from comfy_api.latest import ComfyExtension

FILE = Path(__file__).resolve().parents[3] / "nodes" / "methods" / "seams" / "comfyui_versions.py"
spec = importlib.util.spec_from_file_location("stem_comfyui_versions_of_the_renaming_pack", FILE)
comfyui_versions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(comfyui_versions)

RENAMED = {
    "old_node_id": "STEMOldExample",
    "new_node_id": "STEMCompareVideos",
    "old_widget_ids": ["place"],
    "input_mapping": [
        {"new_id": "first", "old_id": "before"},
        {"new_id": "second", "old_id": "after"},
        {"new_id": "column", "old_id": "place"},
        {"new_id": "labels", "set_value": "a, b"},
    ],
    "output_mapping": [{"old_idx": 0, "new_idx": 1}],
}


class RenamingExtension(ComfyExtension):
    async def on_load(self) -> None:
        await comfyui_versions.register_replacements([RENAMED])

    async def get_node_list(self) -> list:
        return []


async def comfy_entrypoint() -> RenamingExtension:
    return RenamingExtension()
