"""FateZero edits of the measured clips, with a preset of the node for each kind of edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ....nodes.methods.attention.frame_context import OWN_FRAME
from ....nodes.methods.attention.installing import installed_method
from ....nodes.methods.fatezero.edit import FateZeroSettings, edit
from ....nodes.methods.fatezero.presets import PRESETS
from ....nodes.methods.fatezero.prompts import read_prompt
from ....nodes.methods.fatezero.word_control import WordWishes, read_words
from ....nodes.methods.inversion.inversion import Inversion
from ...host.loaded_model import Loaded
from .clips import Edit

PRESET_OF = {"object": "shape", "style": "style", "colour": "attribute"}
PURPOSE = "make quality"


def edited(
    loaded: Loaded, inversion: Inversion, caption: str, wish: Edit, cfg: float, changes: Mapping[str, Any] | None = None
) -> Tensor:
    """LATENT samples of the edit; what is not fused has the attention of the inversion.

    changes: fields of FateZeroSettings and WordWishes that differ from those of 0.1.0; None for what the preset has.
    """
    preset = PRESETS[PRESET_OF[wish.kind]]
    settings = FateZeroSettings(
        cfg=cfg,
        self_window=preset.self_window,
        blend_self=preset.blend_self,
        threshold=preset.threshold,
        own=installed_method(inversion.model) or OWN_FRAME,
    )
    shipped = {"cfg_window": preset.cfg_window, "levels": preset.levels}
    changes = dict(shipped if changes is None else changes)
    window = changes.pop("window", preset.cross_window)
    if "levels" in changes:
        changes["levels"] = frozenset(changes["levels"])
    settings = replace(settings, **changes)
    source, target = (read_prompt(loaded.clip, text, "a", PURPOSE) for text in (caption, wish.scene.caption))
    weights = {wish.word: preset.weight} if wish.kind == "style" else {}
    wishes = WordWishes(
        preset.control,
        window,
        weights=weights,
        masks_source=settings.blend_self or settings.blend_latents,
        masks_target=settings.blend_latents,
    )
    words = read_words(source, target, wishes, len(inversion.timesteps), PURPOSE)
    return edit(loaded.model, inversion, target.conditioning, loaded.prompt(""), words.control, settings).samples
