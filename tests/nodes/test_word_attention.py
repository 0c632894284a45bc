"""Word Attention shows the attention that FateZero Edit makes its masks of."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroGuider, FateZeroSettings, edit
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.watching import watched_words
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.nodes.word_attention import WordAttention
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.stem_kernels.masks import attention_mask

SOURCE, TARGET = "a silver jeep, on a road", "a silver castle, on a road"
FRAMES = 5


def inverted(loaded, video, frames_per_batch=None):
    method = StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=8)), frames_per_batch)
    return invert(install(loaded.model, method), loaded.prompt(SOURCE), video, 3, "next")


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return inverted(loaded, video)


def test_the_attention_is_what_fatezero_makes_its_mask_of(loaded, inversion, monkeypatch):
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, TARGET))
    words = read_words(source, target, WordWishes("auto", 1.0, masks_source=True), 3, "Test").control
    seen = []
    real = FateZeroGuider.latent_attention
    monkeypatch.setattr(FateZeroGuider, "latent_attention", lambda *a: seen.append(a[1]) or real(*a))
    edit(
        loaded.model,
        inversion,
        target.conditioning,
        loaded.prompt(""),
        words,
        FateZeroSettings(blend_self=True, self_window=1.0),
    )
    for theirs, timestep in zip(seen, reversed(inversion.timesteps), strict=True):
        columns = {"jeep": words.source_words}
        (ours,) = watched_words(inversion, source.conditioning, columns, timestep, "Test")
        torch.testing.assert_close(ours, theirs.cpu(), rtol=1e-4, atol=1e-6)


def test_every_word_has_a_picture_in_the_order_of_the_prompt(loaded, inversion):
    picture, mask, text = WordAttention.execute(inversion, loaded.clip, SOURCE, "", 0.5, 0.3).args
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["a", "silver", "jeep", "on", "road"]
    assert lines[0] == f"timestep {inversion.timesteps[1]}"
    # five words in two rows of three, each of half the video's size below a label
    assert picture.shape == (FRAMES, 2 * (32 + 18) + 4, 3 * 48 + 8, 3)
    assert 0 <= float(picture.min()) and float(picture.max()) <= 1
    assert mask.shape == (FRAMES, 64, 96) and set(mask.unique().tolist()) <= {0.0, 1.0}


def test_attention_is_the_same_whatever_the_batches(loaded, video, inversion):
    columns = {"jeep": (3,), "road": (7,)}
    prompt = loaded.prompt(SOURCE)
    whole = watched_words(inversion, prompt, columns, inversion.timesteps[1], "Test")
    parts = watched_words(inverted(loaded, video, 2), prompt, columns, inversion.timesteps[1], "Test")
    assert whole.shape == (2, FRAMES, 2, 3)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)


def test_the_attention_to_all_tokens_adds_up_to_one(loaded, inversion):
    everything = {str(column): (column,) for column in range(77)}
    found = watched_words(inversion, loaded.prompt(SOURCE), everything, inversion.timesteps[0], "Test")
    torch.testing.assert_close(found.sum(0), torch.ones(FRAMES, 2, 3))


def test_another_prompt_can_be_looked_for(loaded, inversion):
    words, last = "castle, silver castle", inversion.timesteps[-1]
    attention = watched_words(inversion, loaded.prompt(TARGET), {"a": (3,), "b": (2, 3)}, last, "Test").sum(0)
    for threshold in (0.1, 0.95, 1.0):
        _, mask, text = WordAttention.execute(inversion, loaded.clip, TARGET, words, 1.0, threshold).args
        assert "\ncastle: " in text and "\nsilver castle: " in text
        assert torch.equal(mask, attention_mask(attention, (64, 96), threshold).float())


@pytest.mark.parametrize(
    ("prompt", "words", "message"),
    [
        (SOURCE, "bear", "Word Attention: 'bear' is not in the prompt 'a silver jeep, on a road'"),
        ("", "", "Word Attention: the prompt has no words"),
        ("tree " * 100, "", "Word Attention, the prompt: The prompt fills 2 blocks"),
    ],
)
def test_words_that_are_not_there_are_refused(loaded, inversion, prompt, words, message):
    with pytest.raises(ValueError, match=message):
        WordAttention.execute(inversion, loaded.clip, prompt, words, 0.5, 0.3)
