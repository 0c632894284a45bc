"""Nodes that change the size of features inside the network: layers of one level then have several sizes."""

from __future__ import annotations

import pytest
import torch
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfyui_stem.nodes.bases_preview import BasesPreview
from comfyui_stem.nodes.feature_pca import FeaturePCA
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings, edit
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings
from comfyui_stem.nodes.methods.tokenflow.edit import edit as edit_tokenflow
from comfyui_stem.nodes.word_attention import WordAttention
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.measured.errors import relative_error as relative

SOURCE, TARGET = "a cat on a road", "a dog on a road"
STEM = StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=4)))
FRAMES, STEPS = 3, 2


def shrunk(model, block):
    """The MODEL with Kohya's deep shrink from an input block on, in all steps."""
    fields = (model, block, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    node = PatchModelAddDownscale
    return node.execute(*fields).args[0] if hasattr(node, "execute") else node().patch(*fields)[0]


@pytest.fixture(scope="module", params=[1, 6])
def block(request):
    """By block, the layers of the finest or of the masks' level on both sides differ."""
    return request.param


@pytest.fixture(scope="module")
def inversion(loaded, block):
    with torch.inference_mode():
        video = torch.randn(FRAMES, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        return invert(install(shrunk(loaded.model, block), STEM), loaded.prompt(SOURCE), video, STEPS, "next")


def fatezero(loaded, model, inversion, target, **settings):
    read = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, target))
    masked = bool(settings.get("blend_self"))
    words = read_words(*read, WordWishes("auto", 1.0, masks_source=masked, masks_target=masked), STEPS, "Test")
    settings = {"self_window": 1.0, "levels": frozenset((0, 1, 2, 3)), "own": STEM, **settings}
    fields = FateZeroSettings(**settings)
    return edit(model, inversion, loaded.prompt(target), loaded.prompt(""), words.control, fields)


def test_fatezero_with_the_source_prompt_is_the_reconstruction(loaded, inversion, block):
    found = fatezero(loaded, shrunk(loaded.model, block), inversion, SOURCE, cfg=1.0).samples
    expected = reconstruct(inversion, inversion.model, inversion.source)
    # the source's attention is that of the inversion's own latents, which the reconstruction only comes close to
    assert relative(found, expected) < 0.05


def test_fatezero_finds_masks_and_keeps_what_is_inside_them(loaded, inversion, block):
    model = shrunk(loaded.model, block)
    free = fatezero(loaded, model, inversion, TARGET)
    masked = fatezero(loaded, model, inversion, TARGET, blend_self=True, blend_latents=True, latent_window=(0.0, 1.0))
    assert masked.mask.shape == (FRAMES, 16, 16) and masked.samples.isfinite().all()
    assert not torch.equal(masked.samples, free.samples)


@pytest.mark.parametrize("on_edit", [True, False])
def test_fatezero_with_it_on_one_side_alone_is_refused_with_both_sizes(loaded, block, inversion, on_edit):
    plain = invert(install(loaded.model, STEM), loaded.prompt(SOURCE), inversion.trajectory[0], STEPS, "next")
    model, used = (shrunk(loaded.model, block), plain) if on_edit else (loaded.model, inversion)
    size = {1: 16, 6: 4}[block]
    sizes = (size // 2, size) if on_edit else (size, size // 2)
    message = "are {0}x{0} in the edit and {1}x{1} in the inversion.*PatchModelAddDownscale".format(*sizes)
    with pytest.raises(ValueError, match=message):
        fatezero(loaded, model, used, TARGET)


@pytest.mark.parametrize("on_edit", [True, False])
def test_tokenflow_needs_it_on_neither_side(loaded, block, inversion, on_edit):
    model = shrunk(loaded.model, block) if on_edit else loaded.model
    settings = TokenFlowSettings(batch_size=2)
    edited = edit_tokenflow(model, inversion, loaded.prompt(TARGET), loaded.prompt(""), settings)
    assert edited.shape == (FRAMES, 4, 16, 16) and edited.isfinite().all()


@pytest.mark.parametrize("layer", [4, 8, 12])
def test_pictures_of_a_layer_have_the_size_of_the_video(inversion, layer):
    for node in (BasesPreview, FeaturePCA):
        assert node.execute(inversion, layer, 0.5).args[0].shape == (FRAMES, 128, 128, 3)


def test_word_attention_brings_layers_of_several_sizes_together(loaded, inversion):
    picture, mask, _ = WordAttention.execute(inversion, loaded.clip, SOURCE, "cat", 0.5, 0.3).args
    assert picture.shape == (FRAMES, 64 + 18, 64, 3) and mask.shape == (FRAMES, 128, 128)
