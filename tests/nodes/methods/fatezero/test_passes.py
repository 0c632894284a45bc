"""Steps in batches of frames: the same as all frames at once, and nothing left where one is stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.attention.frame_context import OWN_FRAME, FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero import edit as fatezero
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.tools.measured.errors import relative_error as relative

STEPS = 2
SOURCE, TARGET = "a red hill", "a red castle"
ALL_LEVELS = frozenset((0, 1, 2, 3))


def stem(preset, **changes):
    settings = replace(PRESETS[preset], **changes)
    return StemSelfAttention.from_settings(replace(settings, em=replace(settings.em, num_bases=8)))


METHODS = {
    "plain": OWN_FRAME,
    "paper": stem("paper"),
    "chunks of 3": stem("paper", scope="frame_chunks", scope_frames=3),
    "anchors": stem("paper", scope="anchor_frames", scope_frames=2, mass_weighted=True),
    # each iteration at the reference code's temperature of 0.01 magnifies rounding
    "reference_code": stem("reference_code", scope_frames=3, em=replace(PRESETS["reference_code"].em, iterations=1)),
    "tokenflow": stem("tokenflow"),
    "own and middle frame": FrameContextAttention((0, "mid")),
    "previous and first frame": FrameContextAttention((-1, "first"), finest_level=1),
    "all frames": FrameContextAttention(None),
}


@pytest.fixture(scope="module")
def inverted(loaded, video):
    """Inversions of the clip by method, made once."""
    kept = {}

    def get(name):
        if name not in kept:
            model = loaded.model if name == "plain" else install(loaded.model, METHODS[name])
            kept[name] = invert(model, loaded.prompt(SOURCE), video, STEPS, "next")
        return kept[name]

    with torch.inference_mode():
        yield get


@pytest.fixture
def edited(loaded, inverted, monkeypatch):
    """An edit in batches of so many frames."""

    def edit(name, size, wishes=None, **changes):
        monkeypatch.setattr(fatezero, "frames_per_batch", lambda model, inversion: min(size, inversion.frames))
        source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, TARGET))
        defaults = {"masks_source": True, "masks_target": True, "window": 0.5}
        words = read_words(source, target, WordWishes(**defaults | (wishes or {})), STEPS, "Test").control
        prompts = changes.pop("prompts", None) or (target.conditioning, loaded.prompt("rain"))
        model, own = changes.pop("model", loaded.model), changes.pop("own", METHODS[name])
        settings = FateZeroSettings(**{"cfg": 3.0, "self_window": 1.0, "levels": ALL_LEVELS, "own": own} | changes)
        return fatezero.edit(model, inverted(name), *prompts, words, settings)

    return edit


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_step_does_not_depend_on_the_batches(edited, video, name, size):
    whole, split = (edited(name, frames, cfg=1.5) for frames in (len(video), size))
    assert relative(split.samples, whole.samples) < 1e-5
