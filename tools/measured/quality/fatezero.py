"""FateZero edits of the measured clips, with a preset of the node for each kind of edit."""

from __future__ import annotations

from torch import Tensor

from ...nodes.fatezero_presets import PRESETS
from ...nodes.host.fatezero import FateZeroSettings, edit
from ...nodes.host.frame_context import OWN_FRAME
from ...nodes.host.inversion import Inversion
from ...nodes.host.prompts import read_prompt
from ...nodes.host.self_attention import installed_method
from ...nodes.word_control import WordWishes, read_words
from ..loaded_model import Loaded
from .clips import Edit

PRESET_OF = {"object": "shape", "style": "style", "colour": "attribute"}
PURPOSE = "make quality"


def edited(loaded: Loaded, inversion: Inversion, caption: str, wish: Edit, cfg: float) -> Tensor:
    """LATENT samples of the edit; what is not fused has the attention of the inversion."""
    preset = PRESETS[PRESET_OF[wish.kind]]
    settings = FateZeroSettings(
        cfg=cfg,
        self_window=preset.self_window,
        blend_self=preset.blend_self,
        threshold=preset.threshold,
        own=installed_method(inversion.model) or OWN_FRAME,
    )
    source, target = (read_prompt(loaded.clip, text, "a", PURPOSE) for text in (caption, wish.scene.caption))
    weights = {wish.word: preset.weight} if wish.kind == "style" else {}
    wishes = WordWishes(preset.control, preset.cross_window, weights=weights, masks_source=preset.blend_self)
    words = read_words(source, target, wishes, len(inversion.timesteps), PURPOSE)
    return edit(loaded.model, inversion, target.conditioning, loaded.prompt(""), words.control, settings).samples
