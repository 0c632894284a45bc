from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.host.ddim_sampling import denoise, denoising_sigmas, invert
from comfyui_stem.nodes.host.edit_guider import StepSchedule
from comfyui_stem.nodes.host.fatezero import FateZeroGuider, FateZeroSettings, WordControl, edit
from comfyui_stem.nodes.host.frame_context import FrameContextAttention
from comfyui_stem.nodes.host.prompts import read_prompt
from comfyui_stem.nodes.host.reconstruction import reconstruct
from comfyui_stem.nodes.host.self_attention import install
from comfyui_stem.nodes.host.stem_attention import PRESETS, StemSelfAttention, StemSettings
from comfyui_stem.nodes.word_control import WordWishes, read_words
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.parity.case import relative_error as relative

STEPS = 3
SOURCE, TARGET = "a red hill", "a red castle"
LEVELS = frozenset((0, 1, 2, 3))
NOTHING = FateZeroSettings(cfg=1.0, self_window=0.0)
EVERYTHING = FateZeroSettings(cfg=1.0, self_window=1.0, levels=LEVELS)


def stem_method(**changes):
    return StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=16), **changes))


METHODS = {
    "plain": None,
    "stem": stem_method(),
    "reference_code": StemSelfAttention.from_settings(
        replace(PRESETS["reference_code"], em=replace(PRESETS["reference_code"].em, num_bases=16), scope_frames=3)
    ),
    "frames": FrameContextAttention((0, "mid")),
}


def own(method):
    return {} if method is None else {"own": method}


@pytest.fixture(scope="module")
def inverted(loaded, video):
    """Inversions of the clip by method, convention and number of steps, made once."""
    kept = {}

    def get(name="plain", convention="next", steps=STEPS):
        if (name, convention, steps) not in kept:
            model = install(loaded.model, METHODS[name]) if METHODS[name] else loaded.model
            kept[name, convention, steps] = invert(model, loaded.prompt(SOURCE), video, steps, convention)
        return kept[name, convention, steps]

    with torch.inference_mode():
        yield get


def words(loaded, target=TARGET, steps=STEPS, **wishes) -> WordControl:
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, target))
    return read_words(source, target, WordWishes(**({"window": 0.0} | wishes)), steps, "Test").control


def edited(loaded, inversion, settings, target=TARGET, negative="rain", model=None, control=None, **wishes):
    control = control or words(loaded, target, len(inversion.timesteps), **wishes)
    return edit(model or loaded.model, inversion, loaded.prompt(target), loaded.prompt(negative), control, settings)


def source_samples(loaded, inversion):
    return loaded.model.model.process_latent_out(inversion.trajectory[0])


@pytest.mark.parametrize("name", METHODS)
def test_without_windows_the_target_prompt_is_simply_denoised(loaded, inverted, name):
    inversion = inverted(name)
    settings = replace(NOTHING, cfg=3.0, **own(METHODS[name]))
    expected = reconstruct(inversion, inversion.model, loaded.prompt(TARGET), loaded.prompt("rain"), cfg=3.0)
    assert relative(edited(loaded, inversion, settings).samples, expected) < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_where_edit_and_source_are_the_same_full_control_changes_nothing(loaded, inverted, name):
    # One step from the latent that the source is evaluated at, with its own prompt: every attention is the source's.
    inversion = inverted(name, "current", 1)
    settings = replace(EVERYTHING, **own(METHODS[name]))
    result = edited(loaded, inversion, settings, target=SOURCE, window=1.0).samples
    assert relative(result, reconstruct(inversion, inversion.model, inversion.source)) < 1e-5


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("convention", ["next", "current"])
def test_the_source_prompt_as_target_with_full_control_gives_the_clip_back(loaded, inverted, name, convention):
    inversion = inverted(name, convention)
    settings = replace(EVERYTHING, **own(METHODS[name]))
    kept = edited(loaded, inversion, settings, target=SOURCE, window=1.0).samples
    reconstruction = reconstruct(inversion, inversion.model, inversion.source)
    changed = edited(loaded, inversion, replace(NOTHING, cfg=7.5, **own(METHODS[name]))).samples
    assert relative(kept, reconstruction) < 0.3 * relative(changed, reconstruction)


@pytest.mark.parametrize("name", METHODS)
def test_the_replay_is_the_evaluation_of_the_inversion(loaded, inverted, name):
    inversion, seen = inverted(name), []

    class Listening(FateZeroGuider):
        def run_model(self, conds, x, sigma, model_options, network=None):
            out = super().run_model(conds, x, sigma, model_options, network)
            if network is not None:
                seen.append(((x - out[0]) / sigma[0], sigma[0]))
            return out

    schedule = StepSchedule(inversion.timesteps, STEPS)
    guider = Listening(loaded.model, inversion, words(loaded), replace(EVERYTHING, **own(METHODS[name])), schedule)
    prompts = {"positive": TARGET, "negative": "rain"}
    guider.inner_set_conds({key: loaded.prompt(text) for key, text in prompts.items()} | {"source": inversion.source})
    sigmas = denoising_sigmas(inversion, inversion.timesteps, "alpha0")
    denoise(guider, inversion.trajectory[-1], sigmas, inversion.timesteps[::-1], "Test", guider.after_move)
    assert len(seen) == STEPS
    for step, (noise, sigma) in enumerate(seen):
        entry = STEPS - step
        before = inversion.trajectory[entry - 1] * (1 + inversion.sigmas[entry - 1] ** 2) ** 0.5
        reached = (before + (sigma - inversion.sigmas[entry - 1]) * noise) / (1 + sigma**2) ** 0.5
        assert relative(reached, inversion.trajectory[entry]) < 1e-6


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("part", ["self_window", "window"])
def test_control_reaches_the_edit(loaded, inverted, name, part):
    inversion, settings = inverted(name), replace(NOTHING, **own(METHODS[name]))
    free = edited(loaded, inversion, settings).samples
    if part == "self_window":
        held = edited(loaded, inversion, replace(settings, self_window=1.0)).samples
    else:
        held = edited(loaded, inversion, settings, window=1.0).samples
    assert torch.isfinite(held).all() and relative(held, free) > 1e-4


def test_a_base_for_every_token_is_fatezero_with_all_frames_as_context(loaded, video, inverted):
    em = EMSettings(num_bases=5 * 8 * 12, temperature=1e-4)
    many = StemSelfAttention.from_settings(StemSettings(em=em))
    results = []
    for method in (many, FrameContextAttention(None), stem_method()):
        inversion = invert(install(loaded.model, method), loaded.prompt(SOURCE), video, STEPS, "next")
        results.append(edited(loaded, inversion, replace(EVERYTHING, cfg=5.0, own=method), window=0.7).samples)
    assert relative(results[0], results[1]) < 1e-3
    assert relative(results[2], results[1]) > 1e-3


@pytest.mark.parametrize("name", ["plain", "stem"])
@pytest.mark.parametrize("negative", ["rain", "rain " * 90])
def test_a_forced_split_of_conditionings_changes_nothing(loaded, inverted, monkeypatch, name, negative):
    settings = replace(EVERYTHING, cfg=5.0, blend_self=True, blend_latents=True, **own(METHODS[name]))
    wishes = {"negative": negative, "window": 0.7, "blends": True, "source_words": ("hill",)}
    joint = edited(loaded, inverted(name), settings, **wishes)
    monkeypatch.setattr(loaded.model.model, "memory_required", lambda *args, **kwargs: float("inf"))
    split = edited(loaded, inverted(name), settings, **wishes)
    assert relative(split.samples, joint.samples) < 1e-3
    assert torch.equal(split.mask, joint.mask)


def test_without_guidance_the_negative_prompt_does_not_matter(loaded, inverted):
    results = [edited(loaded, inverted(), EVERYTHING, negative=text).samples for text in ("rain", "snow")]
    assert torch.equal(*results)


def test_fusing_the_unconditional_rows_matters_only_with_guidance(loaded, inverted):
    for cfg, differs in ((1.0, False), (5.0, True)):
        results = [
            edited(loaded, inverted(), replace(EVERYTHING, cfg=cfg, fuse_unconditional=flag)).samples
            for flag in (False, True)
        ]
        assert (relative(*results) > 1e-4) == differs


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_the_mask_decides_which_pixels_keep_their_own_self_attention(loaded, inverted, threshold):
    # All pixels have some attention to a word: below it everything keeps its own, above it nothing does.
    inversion = inverted("stem")
    settings = replace(EVERYTHING, own=METHODS["stem"], threshold=threshold)
    wishes = {"window": 0.7, "blends": True}
    masked = edited(loaded, inversion, replace(settings, blend_self=True), **wishes)
    expected = edited(loaded, inversion, replace(settings, self_window=0.0 if threshold == 0.0 else 1.0), **wishes)
    assert relative(masked.samples, expected.samples) < 1e-5
    assert (masked.mask == (1.0 if threshold == 0.0 else 0.0)).all()
    assert (expected.mask == 1).all()  # no mask was in use


def test_outside_an_empty_mask_the_latents_are_the_sources(loaded, inverted):
    inversion = inverted()
    settings = replace(NOTHING, cfg=7.5, blend_latents=True, latent_window=1.0, threshold=2.0)
    result = edited(loaded, inversion, settings, blends=True)
    assert relative(result.samples, source_samples(loaded, inversion)) < 1e-6
    full = edited(loaded, inversion, replace(settings, threshold=0.0), blends=True)
    free = edited(loaded, inversion, replace(settings, blend_latents=False))
    assert relative(full.samples, free.samples) < 1e-6


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("resizing", ["nearest", "bilinear"])
def test_blending_puts_back_exactly_what_the_mask_leaves_out(loaded, video, accumulate, resizing):
    # Large enough that the widened peak does not fill the level that masks are read from.
    clip = torch.nn.functional.interpolate(video[:2], (32, 48), mode="bicubic")
    inversion = invert(loaded.model, loaded.prompt(SOURCE), clip, 2, "next")
    settings = replace(NOTHING, cfg=7.5, blend_latents=True, latent_window=1.0, accumulate=accumulate)
    settings = replace(settings, threshold=0.97, resizing=resizing)
    result = edited(loaded, inversion, settings, blends=True)
    assert result.mask.shape == (2, 32, 48) and 0 < result.mask.mean() < 1
    outside = (result.mask == 0)[:, None].expand_as(result.samples)
    difference = (result.samples - source_samples(loaded, inversion)).abs()
    assert difference[outside].max() < 1e-5 < difference[~outside].max()


def test_reweighting_a_word_changes_the_edit_within_or_beyond_its_window(loaded, inverted):
    plain, weighted, always = (
        edited(loaded, inverted(), NOTHING, window=0.4, **wishes).samples
        for wishes in ({}, {"weights": {"castle": 10.0}}, {"weights": {"castle": 10.0}, "reweighting": "all_steps"})
    )
    assert relative(weighted, plain) > 1e-4 and relative(always, weighted) > 1e-4


def test_a_lora_of_the_edit_leaves_the_source_pass_and_the_weights_alone(loaded, inverted):
    inversion = inverted("stem")
    key = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"
    weight = loaded.model.model.state_dict()[key].clone()
    with_lora = loaded.model.clone()
    difference = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    with_lora.add_patches({key: (difference.to(weight.dtype),)}, 0.5)
    sources, settings = {}, replace(EVERYTHING, own=METHODS["stem"])

    class Listening(FateZeroGuider):
        def run_model(self, conds, x, sigma, model_options, network=None):
            out = super().run_model(conds, x, sigma, model_options, network)
            sources.setdefault(network is not None, []).append(out[0])
            return out

    results = {}
    for name, model in (("plain", loaded.model), ("lora", with_lora)):
        sources.clear()
        guider = Listening(model, inversion, words(loaded), settings, StepSchedule(inversion.timesteps, STEPS))
        prompts = {"positive": TARGET, "negative": "rain"}
        conds = {key: loaded.prompt(text) for key, text in prompts.items()}
        guider.inner_set_conds(conds | {"source": inversion.source})
        sigmas = denoising_sigmas(inversion, inversion.timesteps, "alpha0")
        denoise(guider, inversion.trajectory[-1], sigmas, inversion.timesteps[::-1], "Test", guider.after_move)
        results[name] = {is_source: torch.stack(out) for is_source, out in sources.items()}
    assert torch.equal(results["plain"][True], results["lora"][True])
    assert relative(results["lora"][False], results["plain"][False]) > 1e-4
    reconstruct(inversion, loaded.model, inversion.source)  # takes the LoRA off
    assert torch.equal(loaded.model.model.state_dict()[key], weight)


def test_fewer_steps_than_the_inversion_replay_the_evaluations_of_their_own_timesteps(loaded, inverted):
    inversion = inverted("stem", steps=4)
    settings = replace(EVERYTHING, own=METHODS["stem"], steps=2)
    result = edited(loaded, inversion, settings, control=words(loaded, steps=2, window=0.7))
    assert torch.isfinite(result.samples).all()


def test_a_clip_of_one_frame_is_edited(loaded, video):
    inversion = invert(loaded.model, loaded.prompt(SOURCE), video[:1], STEPS, "next")
    result = edited(loaded, inversion, replace(EVERYTHING, cfg=5.0, blend_self=True), window=0.7, blends=True)
    assert result.samples.shape == (1, 4, 8, 12) and torch.isfinite(result.samples).all()


def test_another_packs_cross_attention_is_refused_by_name(loaded, inverted):
    def ip_adapter(q, k, v, extra_options):
        return q

    with_adapter = loaded.model.clone()
    with_adapter.set_model_attn2_replace(ip_adapter, "output", 5)
    with pytest.raises(ValueError, match="cross-attention of block output 5 is already replaced .*ip_adapter"):
        edited(loaded, inverted(), EVERYTHING, model=with_adapter)
    elsewhere = loaded.model.clone()
    elsewhere.set_model_attn2_replace(ip_adapter, "output", 11)  # a layer that is not controlled
    settings = replace(EVERYTHING, levels=frozenset((1, 2, 3)))
    assert torch.isfinite(edited(loaded, inverted(), settings, model=elsewhere).samples).all()


def test_a_node_that_adds_tokens_to_the_prompt_is_refused(loaded, inverted):
    def adds_tokens(n, context, value, extra_options):
        more = torch.cat([context, context[:, :4]], dim=1)
        return n, more, more

    model = loaded.model.clone()
    model.set_model_attn2_patch(adds_tokens)
    with pytest.raises(ValueError, match="cross-attention reads 81 tokens"):
        edited(loaded, inverted(), EVERYTHING, model=model, window=1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"self_window": 1.5}, "self-attention window runs from 0 to 1.5"),
        ({"latent_window": (0.8, 0.2)}, "latent blend's window starts at 0.8"),
        ({"steps": 2}, "2 steps do not match the inversion"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_computed(loaded, inverted, changes, message):
    with pytest.raises(ValueError, match=message):
        edited(loaded, inverted(), replace(EVERYTHING, **changes))
