"""SD 2.x and SDXL: the layers that are found, the recursion on their own noise estimates, and every sampler."""

from __future__ import annotations

from dataclasses import replace

import comfy.sd
import comfy.supported_models
import pytest
import torch
from comfyui_stem.nodes.bases_preview import BasesPreview
from comfyui_stem.nodes.feature_pca import FeaturePCA
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero import edit as fatezero
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.edit import edit as edit_by_fatezero
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordControl, WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.file import load_inversion, save_inversion
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import feature_block, self_attention_layers
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS, StemSettings
from comfyui_stem.nodes.methods.tokenflow import memory
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings
from comfyui_stem.nodes.methods.tokenflow.edit import edit as edit_by_tokenflow
from comfyui_stem.nodes.methods.tokenflow.keyframe_store import KeyframeStore
from comfyui_stem.stem_kernels.ddim import alpha_of, move_preserving
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.host import tiny_families
from comfyui_stem.tools.host.loaded_model import Loaded
from comfyui_stem.tools.host.tiny_checkpoint import unet_config
from comfyui_stem.tools.measured.errors import relative_error as relative

STEPS = 2
FRAMES = 3
SOURCE, TARGET = "a red hill", "a red castle"
STEM = StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=16)))
PER_HEAD = replace(PRESETS["reference_code"], em=replace(PRESETS["reference_code"].em, num_bases=4))
SDXL_LAYOUT = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}


@pytest.fixture(scope="module", params=tiny_families.FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def loaded(family) -> Loaded:
    """The family's checkpoint as the host's own loader reads it."""
    with torch.inference_mode():
        tiny_families.register()
        model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(tiny_families.build(family))
        assert type(model.model.model_config) is tiny_families.FAMILIES[family]
        return Loaded(model, clip, vae)


@pytest.fixture(scope="module")
def video(video) -> torch.Tensor:
    return video[:FRAMES]


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(install(loaded.model, STEM), loaded.prompt(SOURCE), video, STEPS, "next")


def words(loaded, target, window) -> WordControl:
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, target))
    return read_words(source, target, WordWishes(window=window), STEPS, "Test").control


def unet_of(family, **config):
    return family(unet_config(320, 1024) | config).get_model({}, device="meta").diffusion_model


def test_sd2_has_the_layers_of_sd1():
    layers = self_attention_layers(unet_of(comfy.supported_models.SD20, use_linear_in_transformer=True))
    assert layers == self_attention_layers(unet_of(comfy.supported_models.SD15))


def test_sdxl_has_its_seventy_layers_by_level_and_transformer():
    layers = self_attention_layers(unet_of(comfy.supported_models.SDXL, **SDXL_LAYOUT))
    blocks = [("input", 4, 1, 2), ("input", 5, 1, 2), ("input", 7, 2, 10), ("input", 8, 2, 10), ("middle", 0, 2, 10)]
    blocks += [("output", n, 2, 10) for n in (0, 1, 2)] + [("output", n, 1, 2) for n in (3, 4, 5)]
    expected = [(*block, n) for *block, depth in blocks for n in range(depth)]
    assert [(layer.block, layer.number, layer.level, layer.transformer) for layer in layers] == expected
    assert [layer.index for layer in layers] == list(range(70))
    assert {layer.number for layer in layers if layer.injected} == {1, 2, 3, 4, 5}
    assert all(layer.block == "output" for layer in layers if layer.injected)
    assert feature_block(layers) == 1


def test_attention_over_time_is_refused():
    unet = unet_of(comfy.supported_models.SD15, use_temporal_attention=True, merge_strategy="learned")
    with pytest.raises(ValueError, match="has attention over time, so it is not built like Stable Diffusion"):
        self_attention_layers(unet)


@pytest.mark.parametrize("convention", ["next", "current"])
def test_inversion_is_the_ddim_recursion_on_the_networks_own_estimates(loaded, family, video, convention):
    prompt, base = loaded.prompt(SOURCE), loaded.model.model
    inversion = invert(loaded.model, prompt, video, STEPS, convention)
    alphas = alpha_of(torch.tensor(inversion.sigmas, dtype=torch.float64))
    more = {}
    if family == "sdxl":
        height, width = (8 * side for side in inversion.size)
        y = base.encode_adm(pooled_output=prompt[0][1]["pooled_output"], width=width, height=height, device="cpu")
        more = {"y": y.expand(len(video), -1)}
    z = base.process_latent_in(video)
    for i, timestep in enumerate(inversion.timesteps):
        seen = timestep if convention == "next" else [0, *inversion.timesteps][i]
        context = prompt[0][0].expand(len(z), -1, -1)
        estimate = base.diffusion_model(z, torch.full((len(z),), float(seen)), context=context, **more)
        if family == "sd2_v":  # v = sqrt(a) eps - sqrt(1 - a) x0
            alpha = float(alphas[i + (convention == "next")])
            estimate = alpha**0.5 * estimate + (1 - alpha) ** 0.5 * z
        z = move_preserving(z, estimate, float(alphas[i]), float(alphas[i + 1]))
        assert relative(inversion.trajectory[i + 1], z) < 1e-4


def test_a_clip_comes_back_from_its_noise_the_better_the_more_steps(loaded, inversion, video):
    fine = invert(inversion.model, inversion.source, video, 8, "next")
    coarse, better = (relative(reconstruct(one, one.model, one.source), video) for one in (inversion, fine))
    assert better < 0.7 * coarse


@pytest.mark.parametrize("settings", [STEM.settings, PER_HEAD], ids=["features", "keys per head"])
def test_frames_in_batches_give_what_all_at_once_give(loaded, video, settings):
    whole, batched = (
        invert(
            install(loaded.model, StemSelfAttention.from_settings(settings, size)),
            loaded.prompt(SOURCE),
            video,
            1,
            "next",
        )
        for size in (None, 2)
    )
    assert relative(batched.trajectory, whole.trajectory) < 1e-5


def test_bases_for_every_pixel_are_attention_to_all_frames(loaded, video):
    # One iteration at a low temperature from every token: every pixel is a base of its own.
    em = replace(STEM.settings.em, num_bases=10**6, temperature=1e-4, iterations=1)
    every = install(loaded.model, StemSelfAttention.from_settings(replace(STEM.settings, em=em)))
    expected = invert(install(loaded.model, FrameContextAttention(None)), loaded.prompt(SOURCE), video, 1, "next")
    assert relative(invert(every, loaded.prompt(SOURCE), video, 1, "next").trajectory, expected.trajectory) < 1e-4


def test_tokenflow_injects_into_the_decoder_and_changes_the_video(loaded, inversion, monkeypatch):
    seen, keep = {}, KeyframeStore.keep

    def noted(self, kind, layer, rows):
        seen.setdefault(kind, []).append(layer)
        keep(self, kind, layer, rows)

    monkeypatch.setattr(KeyframeStore, "keep", noted)
    settings = TokenFlowSettings(batch_size=2, attention_injection=1.0, feature_injection=1.0)
    edited = edit_by_tokenflow(loaded.model, inversion, loaded.prompt(TARGET), loaded.prompt("rain"), settings)
    layers = self_attention_layers(loaded.model.model.diffusion_model)
    injected = [layer.index for layer in layers if layer.injected]
    assert seen["queries"][: len(injected)] == seen["keys"][: len(injected)] == injected
    assert set(seen["queries"]) == set(seen["keys"]) == set(injected)
    unchanged = reconstruct(inversion, loaded.model, loaded.prompt(TARGET), loaded.prompt("rain"), settings.cfg)
    assert torch.isfinite(edited).all() and relative(edited, unchanged) > 1e-2


def test_tokenflow_with_keyframes_in_several_passes_is_that_of_one(loaded, inversion, monkeypatch):
    settings = TokenFlowSettings(batch_size=1, attention_injection=1.0, feature_injection=1.0)
    prompts = loaded.prompt(TARGET), loaded.prompt("rain")
    whole = edit_by_tokenflow(loaded.model, inversion, *prompts, settings)
    monkeypatch.setattr(memory, "KEYFRAMES_AT_ONCE", 2)
    assert relative(edit_by_tokenflow(loaded.model, inversion, *prompts, settings), whole) < 1e-5


def test_tokenflow_of_a_still_video_without_injection_is_plain_denoising(loaded, video):
    still = video[:1].repeat(FRAMES, 1, 1, 1)
    inversion = invert(loaded.model, loaded.prompt(SOURCE), still, STEPS, "next")
    settings = TokenFlowSettings(cfg=3.0, attention_injection=0.0, feature_injection=0.0, batch_size=2)
    edited = edit_by_tokenflow(loaded.model, inversion, loaded.prompt(TARGET), loaded.prompt("rain"), settings)
    expected = reconstruct(inversion, loaded.model, loaded.prompt(TARGET), loaded.prompt("rain"), 3.0)
    assert relative(edited, expected) < 1e-4


def test_fatezero_with_full_control_keeps_the_source_and_without_it_denoises_the_target(loaded, video):
    inversion = invert(install(loaded.model, STEM), loaded.prompt(SOURCE), video, STEPS, "next")
    everything = FateZeroSettings(cfg=1.0, self_window=1.0, levels=frozenset(range(4)), own=STEM)
    negative = loaded.prompt("rain")
    kept = edit_by_fatezero(
        loaded.model, inversion, loaded.prompt(SOURCE), negative, words(loaded, SOURCE, 1.0), everything
    ).samples
    reconstruction = reconstruct(inversion, inversion.model, inversion.source)
    nothing = FateZeroSettings(cfg=3.0, self_window=0.0, own=STEM)
    free = edit_by_fatezero(
        loaded.model, inversion, loaded.prompt(TARGET), negative, words(loaded, TARGET, 0.0), nothing
    ).samples
    assert relative(free, reconstruct(inversion, inversion.model, loaded.prompt(TARGET), negative, 3.0)) < 1e-4
    assert relative(kept, reconstruction) < 0.5 * relative(free, reconstruction)


def test_fatezero_blends_by_the_words_of_the_source(loaded, video):
    # large enough for a mask to leave something out
    large = torch.nn.functional.interpolate(video[:1], scale_factor=2)
    inversion = invert(install(loaded.model, STEM), loaded.prompt(SOURCE), large, STEPS, "next")
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, TARGET))
    wishes = WordWishes(window=0.8, masks_source=True, masks_target=True)
    control = read_words(source, target, wishes, STEPS, "Test").control
    settings = FateZeroSettings(blend_self=True, blend_latents=True, latent_window=1.0, threshold=0.99, own=STEM)
    edited = edit_by_fatezero(loaded.model, inversion, target.conditioning, loaded.prompt(""), control, settings)
    assert torch.isfinite(edited.samples).all() and 0 < float(edited.mask.mean()) < 1


def test_fatezero_does_not_depend_on_the_batches(loaded, inversion, monkeypatch):
    settings = FateZeroSettings(cfg=1.0, self_window=1.0, blend_self=True, threshold=0.98, own=STEM)
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, TARGET))
    control = read_words(source, target, WordWishes(window=1.0, masks_source=True), STEPS, "Test").control
    results = []
    for size in (FRAMES, 2):
        monkeypatch.setattr(fatezero, "frames_per_batch", lambda model, inversion, size=size: size)
        results.append(
            edit_by_fatezero(loaded.model, inversion, target.conditioning, loaded.prompt(""), control, settings).samples
        )
    assert relative(*results) < 1e-5


def test_a_saved_inversion_reconstructs_as_before(loaded, inversion, tmp_path):
    save_inversion(inversion, tmp_path / "x.safetensors")
    after = load_inversion(tmp_path / "x.safetensors", loaded.model, "Test")
    expected = reconstruct(inversion, inversion.model, inversion.source)
    assert torch.equal(reconstruct(after, after.model, after.source), expected)


def test_pictures_show_the_last_layers_and_name_them(loaded, inversion):
    _, _, text = BasesPreview.execute(inversion, -3, 0.5).args
    layers = self_attention_layers(loaded.model.model.diffusion_model)
    assert text.startswith(f"layer {len(layers) - 3} ({layers[-3].name})")
    assert FeaturePCA.execute(inversion, -1, 0.5).args[0].shape[:3] == (FRAMES, 64, 96)
    with pytest.raises(ValueError, match=f"no layer 200; this model has {len(layers)}"):
        FeaturePCA.execute(inversion, 200, 0.5)


def test_prompts_are_read_by_all_encoders_alike(loaded):
    prompt = read_prompt(loaded.clip, "a (red:1.2) castle", "a", "Test")
    assert [word.text for word in prompt.tokenized.words] == ["a", "red", "castle"]
    assert [word.positions for word in prompt.tokenized.words] == [(1,), (2,), (3,)]
