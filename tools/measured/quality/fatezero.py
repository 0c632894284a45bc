"""FateZero edits of the measured clips, with a preset of the node for each kind of edit."""

from __future__ import annotations

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
