"""Edits inside a mask: outside it everything is the source's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.editing.mask import checked_mask, latent_mask
from comfyui_stem.nodes.methods.fatezero import edit as fatezero
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.inversion import Inversion, ModelIdentity
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.tokenflow import edit as tokenflow
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowGuider
from hypothesis import given
from hypothesis import strategies as st

EDITORS = ["TokenFlow", "FateZero"]
# Of an inversion, what its masks depend on.
CLIP = Inversion(torch.zeros(2, 1, 4, 8, 12), (1,), (0.0, 0.1), "next", [], None, ModelIdentity("", None))


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt("a red hill"), video, 2, "next")


@pytest.fixture(scope="module")
def edited(loaded, inversion):
    """Edits by editor and mask, [n, 4, h, w]."""

    def edit(editor, mask, **settings):
        prompts = loaded.prompt("a red castle"), loaded.prompt("rain")
        if editor == "TokenFlow":
            wanted = tokenflow.TokenFlowSettings(batch_size=2, mask=mask, **settings)
            return tokenflow.edit(loaded.model, inversion, *prompts, wanted)
        source, target = (read_prompt(loaded.clip, f"a red {word}", "a", "Test") for word in ("hill", "castle"))
        words = read_words(source, target, WordWishes(window=0.3), 2, "Test").control
        wanted = fatezero.FateZeroSettings(mask=mask, **settings)
        return fatezero.edit(loaded.model, inversion, *prompts, words, wanted).samples

    return edit


@pytest.fixture(scope="module")
def source(loaded, inversion):
    """What the video was before, as LATENT samples."""
    with torch.inference_mode():
        return loaded.model.model.process_latent_out(inversion.trajectory[0])


def half(inversion, frames=1):
    """The left half may change."""
    mask = torch.zeros(frames, *inversion.size)
    mask[..., : mask.shape[-1] // 2] = 1
    return mask


@pytest.mark.parametrize("editor", EDITORS)
def test_a_mask_of_ones_is_the_edit_without_a_mask_to_the_bit(edited, inversion, editor):
    assert torch.equal(edited(editor, torch.ones(1, *inversion.size)), edited(editor, None))


@pytest.mark.parametrize("tail", ["alpha0", "zero"])
@pytest.mark.parametrize("editor", EDITORS)
def test_a_mask_of_zeros_is_the_source(edited, inversion, source, editor, tail):
    result = edited(editor, torch.zeros(inversion.frames, *inversion.size), tail=tail)
    torch.testing.assert_close(result, source, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", [{}, {"start_noise": "shared"}, {"start": 0.5}])
def test_outside_the_mask_every_step_of_tokenflow_sees_the_source(edited, inversion, source, monkeypatch, start):
    seen = []
    original = TokenFlowGuider.predict

    def watched(self, timestep, run, conds, x, *more):
        seen.append((x[..., x.shape[-1] // 2 :] - self.inversion.at(timestep)[..., x.shape[-1] // 2 :]).abs().max())
        return original(self, timestep, run, conds, x, *more)

    monkeypatch.setattr(TokenFlowGuider, "predict", watched)
    result = edited("TokenFlow", half(inversion), **start)
    assert len(seen) == (1 if "start" in start else 2) and max(seen) < 1e-4
    middle = source.shape[-1] // 2
    assert (result - source)[..., middle:].abs().max() < 1e-5 < (result - source)[..., :middle].abs().max()


def test_every_frame_has_the_mask_of_its_own_number(edited, inversion, source):
    mask = half(inversion, inversion.frames)
    mask[1] = 0
    changed = (edited("FateZero", mask) - source).abs().flatten(1).amax(1) > 1e-3
    assert changed.tolist() == [number != 1 for number in range(inversion.frames)]


def test_the_mask_that_fatezero_shows_is_black_where_nothing_could_change(loaded, inversion):
    words = read_words(*(read_prompt(loaded.clip, "hill", "a", "Test") for _ in range(2)), WordWishes(), 2, "Test")
    wanted = fatezero.FateZeroSettings(mask=half(inversion))
    prompts = loaded.prompt("hill"), loaded.prompt("rain")
    shown = fatezero.edit(loaded.model, inversion, *prompts, words.control, wanted).mask
    assert torch.equal(shown, half(inversion).expand_as(shown))


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0, 1), st.booleans())
def test_a_mask_of_any_size_keeps_its_range_and_where_it_is_constant_its_value(height, width, value, each):
    frames, size = 3, (8, 12)
    clip = replace(CLIP, trajectory=torch.zeros(2, frames, 4, *size))
    mask = torch.full((frames if each else 1, height, width), value)
    of_latents = latent_mask(mask, None, clip, "Test")
    assert of_latents.shape == (len(mask), *size)
    torch.testing.assert_close(of_latents, torch.full_like(of_latents, value))


def test_soft_edges_stay_soft_and_thin_lines_are_seen():
    mask = torch.zeros(1, 64, 96)
    mask[..., 43] = 1  # one of eight columns of a latent
    assert latent_mask(mask, None, CLIP, "Test")[0, 0].tolist() == [0.0] * 5 + [0.125] + [0.0] * 6


def test_the_nodes_own_mask_goes_before_that_of_the_start_and_of_the_inverted_latent():
    clip = replace(CLIP, trajectory=torch.zeros(2, 1, 4, 1, 1), mask=torch.full((1, 8, 8), 0.3))
    start = {"noise_mask": torch.full((1, 1, 8, 8), 0.2)}
    given_masks = [(torch.full((1, 8, 8), 0.1), start), (None, start), (None, {"samples": 0}), (None, None)]
    assert [round(latent_mask(*masks, clip, "Test").item(), 2) for masks in given_masks] == [0.1, 0.2, 0.3, 0.3]
    assert latent_mask(None, None, replace(clip, mask=None), "Test") is None


def test_values_beyond_black_and_white_count_as_those():
    assert checked_mask(torch.tensor([[[-1.0, 0.5, 2.0]]]), 1, "Test").tolist() == [[[0.0, 0.5, 1.0]]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(3, 8, 8), "Test: there are 3 masks for 5 frames, .* Connect one mask, or one for each frame"),
        (torch.full((1, 8, 8), float("nan")), "Test: the mask contains NaN or infinity. Check the node that made it"),
    ],
)
def test_masks_that_fit_no_frames_or_hold_no_numbers_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        checked_mask(mask, 5, "Test")
