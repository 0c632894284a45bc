"""What is predicted for GPUs is what the page says, and the counts are those of the network."""

from __future__ import annotations

import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.measured.bench.results import VideoSize
from comfyui_stem.tools.measured.gpu import predictions
from comfyui_stem.tools.measured.gpu.counting import attention_flops, of_network
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(scope="module")
def counts():
    return of_network(1, 64, 64)


def test_attention_and_products_add_up_to_what_pytorch_counts(counts):
    """PyTorch counts the products of attention written out."""
    import comfy.supported_models
    import torch
    from comfyui_stem.tools.host.tiny_checkpoint import unet_config

    described = comfy.supported_models.SD15(unet_config(320, 768))
    described.set_inference_dtype(torch.float16, None)
    network = described.get_model({}, device="meta").diffusion_model
    x, words = (torch.empty(s, device="meta", dtype=torch.float16) for s in ((1, 4, 8, 8), (1, 77, 768)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, torch.ones(1, device="meta"), words, transformer_options={})
    assert counts.products + counts.attention == counter.get_total_flops()


def test_self_attention_and_attention_to_the_words_are_all_there_is(counts):
    step = predictions.Step(VideoSize(1, 64, 64))
    words = sum(attention_flops(tokens, predictions.WORDS, channels) for tokens, channels in step.layers)
    assert step.self_attention() + words == counts.attention


def test_rows_grow_with_the_frames(counts):
    more = of_network(3, 64, 64)
    assert more.attention == 3 * counts.attention
    # what is computed of the timestep and the weights is in both
    assert 2.8 * counts.products < more.products <= 3 * counts.products
    assert more.launches == counts.launches


def test_the_page_has_the_tables_as_they_are_computed():
    notes = (locations.TOOLS / "measured" / "bench" / "notes.md").read_text(encoding="utf-8")
    assert predictions.page() in notes
