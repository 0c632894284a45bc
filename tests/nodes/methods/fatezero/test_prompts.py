"""The token columns of a word are those that the word has in the CONDITIONING, in every text encoder."""

from __future__ import annotations

import comfy.sd
import pytest
import safetensors.torch
import torch
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.tools.host import tiny_families
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PURPOSE = "FateZero Edit"
# Of the tiny text encoders.
WIDTHS = {"sd15": {"l": 64}, "sd2": {"h": 64}, "sdxl": {"l": 32, "g": 64}}


@pytest.fixture(scope="module", params=WIDTHS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def clip(family, checkpoint, tmp_path_factory):
    """A CLIP that knows the embeddings `one` and `three` of its own widths, and `other` of none of them."""
    folder = tmp_path_factory.mktemp("embeddings")
    random = torch.Generator().manual_seed(0)
    for name, vectors in (("one", 1), ("three", 3)):
        tensors = {
            f"clip_{key}": torch.randn(vectors, width, generator=random) for key, width in WIDTHS[family].items()
        }
        tensors = {"emb_params": next(iter(tensors.values()))} if len(tensors) == 1 else tensors
        safetensors.torch.save_file(tensors, folder / f"{name}.safetensors")
    safetensors.torch.save_file({"emb_params": torch.randn(2, 48, generator=random)}, folder / "other.safetensors")
    if len(WIDTHS[family]) > 1:  # as an embedding of SD 1.x in SDXL: it fits only one of the encoders
        safetensors.torch.save_file({"emb_params": torch.randn(2, 32, generator=random)}, folder / "l_only.safetensors")
    with torch.inference_mode():
        if family == "sd15":
            return comfy.sd.load_checkpoint_guess_config(checkpoint, embedding_directory=str(folder))[1]
        tiny_families.register()
        tensors = tiny_families.build(family)
        return comfy.sd.load_state_dict_guess_config(tensors, embedding_directory=str(folder))[1]


# fmt: off
WORDS = st.sampled_from([
    "a", "silver", "jeep", "Porsche,", "\"quoted\"", "…", "café", "吉普车", "🚙🚙", "it's", "spider-man", "3.5", "C++",
    "embedding:one", "embedding:three", "embedding:three,", "embedding:none", "\\(bracket\\)",
])
# fmt: on


def columns_that_move(clip, plain, other):
    """Columns of the CONDITIONING in which two texts of as many tokens differ."""
    first, second = (clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0][0] for text in (plain, other))
    return set((first != second).any(-1).nonzero().flatten().tolist())


@given(words=st.lists(WORDS, min_size=1, max_size=7), data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_columns_of_a_word_are_those_that_its_weight_changes(clip, words, data):
    """A weight scales what the encoder made of its own tokens, and of no others."""
    chosen = data.draw(st.integers(0, len(words) - 1))
    # a weight of nothing else, so that brackets do not change how the text is cut up
    plain, weighted = (
        " ".join([*words[:chosen], f"({words[chosen]}:{weight})", *words[chosen + 1 :]]) for weight in ("1.0", "1.5")
    )
    found = read_prompt(clip, weighted, "target", PURPOSE).tokenized.words
    assert [word.text for word in found] == [word.replace("\\", "") for word in words]
    assert set(found[chosen].positions) == columns_that_move(clip, plain, weighted)


def test_an_embedding_that_comfyui_would_leave_out_is_refused_with_both_widths(clip, family):
    width = max(WIDTHS[family].values())
    with pytest.raises(ValueError, match=f"vectors have 48 numbers, but the text encoder clip_. reads .* of {width}"):
        read_prompt(clip, "a green apple embedding:other on a table", "target", PURPOSE)


def test_an_embedding_that_only_one_encoder_takes_is_refused(clip, family):
    if family == "sdxl":
        with pytest.raises(
            ValueError, match="vectors have 32 numbers, but the text encoder clip_g reads vectors of 64"
        ):
            read_prompt(clip, "an apple embedding:l_only on a table", "target", PURPOSE)


def test_an_embedding_that_is_missing_is_named_where_its_word_is_asked_for(clip):
    source, target = (read_prompt(clip, text, "a", PURPOSE) for text in ("an apple", "an embedding:none apple"))
    assert read_words(source, target, WordWishes("auto", 1.0, weights={"apple": 2.0}), 4, PURPOSE).control
    with pytest.raises(ValueError, match="no such embedding as 'embedding:none'.*models/embeddings"):
        read_words(source, target, WordWishes("auto", 1.0, weights={"embedding:none": 2.0}), 4, PURPOSE)
