from __future__ import annotations

from dataclasses import replace

import comfy.model_patcher
import pytest
import torch
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroGuider, FateZeroSettings, edit
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordControl, WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.guidance import StepSchedule
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS, StemSettings
from comfyui_stem.stem_kernels.ddim import select_timesteps
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.measured.errors import relative_error as relative

STEPS = 2
SOURCE, TARGET = "a red hill", "a red castle"
LEVELS = frozenset((0, 1, 2, 3))
NOTHING = FateZeroSettings(cfg=1.0, self_window=0.0)
EVERYTHING = FateZeroSettings(cfg=1.0, self_window=1.0, levels=LEVELS)


def stem_method(**changes):
    return StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=16), **changes))


# Each iteration at the reference code's temperature of 0.01 magnifies rounding.
REFERENCE_EM = replace(PRESETS["reference_code"].em, num_bases=16, iterations=2)
METHODS = {
    "plain": None,
    "stem": stem_method(),
    "reference_code": StemSelfAttention.from_settings(
        replace(PRESETS["reference_code"], em=REFERENCE_EM, scope_frames=3)
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
    if wishes.pop("blends", False):
        wishes |= {"masks_source": True, "masks_target": True}
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
def test_full_control_does_not_disturb_the_source_prompt(loaded, inverted, name, convention):
    # The source's attention comes from nearly the same latents, so it is nearly what the edit has anyway.
    inversion = inverted(name, convention)
    settings = replace(EVERYTHING, **own(METHODS[name]))
    kept = edited(loaded, inversion, settings, target=SOURCE, window=1.0).samples
    reconstruction = reconstruct(inversion, inversion.model, inversion.source)
    changed = edited(loaded, inversion, replace(NOTHING, cfg=7.5, **own(METHODS[name]))).samples
    assert relative(kept, reconstruction) < 0.3 * relative(changed, reconstruction)


class Listening(FateZeroGuider):
    """Notes the noise that source passes estimate, the edit's predictions, and the latents after each step."""

    def __init__(self, *args):
        super().__init__(*args)
        self.noise, self.predictions, self.latents = [], [], []

    def run_model(self, conds, x, sigma, model_options, network=None):
        out = super().run_model(conds, x, sigma, model_options, network)
        if network is None:
            self.predictions.append(out[0])
        else:
            self.noise.append(((x - out[0]) / sigma[0], float(sigma[0])))
        return out

    def after_move(self, x, timestep, sigma):
        x = super().after_move(x, timestep, sigma)
        self.latents.append(x / (1 + sigma**2) ** 0.5)
        return x


def listened(loaded, inversion, settings, control=None, model=None, steps=0):
    timesteps = select_timesteps(inversion.timesteps, steps)
    control = control or words(loaded, steps=len(timesteps))
    schedule = StepSchedule(timesteps, len(timesteps))
    guider = Listening(model or loaded.model, inversion, control, settings, schedule)
    start = inversion.trajectory[inversion.entry(timesteps[-1])]
    guider.edit(loaded.prompt(TARGET), loaded.prompt("rain"), start, "alpha0")
    return guider


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("steps", [0, 2])
def test_the_replay_is_the_evaluation_of_the_inversion(loaded, inverted, name, steps):
    inversion = inverted(name, steps=4)
    guider = listened(loaded, inversion, replace(EVERYTHING, **own(METHODS[name])), steps=steps)
    assert len(guider.noise) == (steps or 4)
    for timestep, (noise, sigma) in zip(guider.schedule.descending, guider.noise, strict=True):
        entry = inversion.entry(timestep)
        assert sigma == pytest.approx(inversion.sigmas[entry])
        before = inversion.trajectory[entry - 1] * (1 + inversion.sigmas[entry - 1] ** 2) ** 0.5
        reached = (before + (sigma - inversion.sigmas[entry - 1]) * noise) / (1 + sigma**2) ** 0.5
        assert relative(reached, inversion.trajectory[entry]) < 1e-5


@pytest.mark.parametrize("name", ["plain", "stem"])
def test_with_the_current_convention_the_replay_is_the_evaluation_that_follows(loaded, inverted, name):
    inversion = inverted(name, "current", 4)
    guider = listened(loaded, inversion, replace(EVERYTHING, **own(METHODS[name])))
    # The evaluation at the last latent never took place in the inversion.
    for timestep, (noise, sigma) in list(zip(guider.schedule.descending, guider.noise, strict=True))[1:]:
        entry = inversion.entry(timestep)
        x = inversion.trajectory[entry] * (1 + sigma**2) ** 0.5
        following = inversion.sigmas[entry + 1]
        reached = (x + (following - sigma) * noise) / (1 + following**2) ** 0.5
        assert relative(reached, inversion.trajectory[entry + 1]) < 1e-5


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


def test_the_latent_that_is_put_back_is_the_one_that_the_step_has_reached(loaded, inverted):
    inversion = inverted(steps=4)
    settings = replace(NOTHING, cfg=7.5, blend_latents=True, latent_window=0.5, threshold=2.0)
    guider = listened(loaded, inversion, settings, words(loaded, steps=4, blends=True))
    for step, latent in enumerate(guider.latents):
        source = inversion.trajectory[len(inversion.timesteps) - 1 - step]
        assert (relative(latent, source) < 1e-6) == (step < 2)


@pytest.fixture(scope="module")
def large(loaded, video):
    """Large enough that the widened peak does not fill the level that masks are read from."""
    clip = torch.nn.functional.interpolate(video[:1], (32, 48), mode="bicubic")
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt(SOURCE), clip, 2, "next")


@pytest.mark.parametrize("resizing", ["nearest", "bilinear"])
def test_blending_puts_back_exactly_what_the_mask_leaves_out(loaded, large, resizing):
    settings = replace(NOTHING, cfg=7.5, blend_latents=True, latent_window=1.0, threshold=0.97, resizing=resizing)
    result = edited(loaded, large, settings, blends=True)
    assert result.mask.shape == (1, 32, 48) and 0 < result.mask.mean() < 1
    outside = (result.mask == 0)[:, None].expand_as(result.samples)
    difference = (result.samples - source_samples(loaded, large)).abs()
    assert difference[outside].max() < 1e-5 < difference[~outside].max()


def test_accumulated_masks_read_the_sum_of_all_steps_on_both_sides(loaded, large):
    seen = {}

    class Noting(FateZeroGuider):
        def latent_attention(self, source, target):
            used = super().latent_attention(source, target)
            seen.setdefault(self.settings.accumulate, []).append((source, target, *used))
            return used

    for accumulate in (False, True):
        settings = replace(NOTHING, blend_latents=True, latent_window=1.0, accumulate=accumulate)
        schedule = StepSchedule(large.timesteps, 2)
        guider = Noting(loaded.model, large, words(loaded, steps=2, blends=True), settings, schedule)
        guider.edit(loaded.prompt(TARGET), loaded.prompt("rain"), large.trajectory[-1], "alpha0")
    for source, target, used_source, used_target in seen[False]:
        assert torch.equal(source, used_source) and torch.equal(target, used_target)
    (first, second) = seen[True]
    assert torch.equal(second[2], first[0] + second[0]) and torch.equal(second[3], first[1] + second[1])


def test_reweighting_a_word_changes_the_edit_within_or_beyond_its_window(loaded, inverted):
    plain, weighted, always = (
        edited(loaded, inverted(), NOTHING, window=0.4, **wishes).samples
        for wishes in ({}, {"weights": {"castle": 10.0}}, {"weights": {"castle": 10.0}, "reweighting": "all_steps"})
    )
    assert relative(weighted, plain) > 1e-4 and relative(always, weighted) > 1e-4


KEY = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"


@pytest.fixture
def with_lora(loaded):
    """The MODEL with a LoRA-like change of one weight; afterwards the weight must be what it was."""
    weight = loaded.model.model.state_dict()[KEY].clone()
    model = loaded.model.clone()
    difference = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    model.add_patches({KEY: (difference.to(weight.dtype),)}, 0.5)
    yield model
    inversion = invert(loaded.model, loaded.prompt(SOURCE), torch.zeros(1, 4, 8, 8) + 0.5, 1, "next")
    assert inversion.frames == 1  # a run without the LoRA takes it off
    assert torch.equal(loaded.model.model.state_dict()[KEY], weight)


def test_a_lora_of_the_edit_leaves_the_source_pass_alone(loaded, inverted, with_lora):
    settings = replace(EVERYTHING, own=METHODS["stem"])
    # Without weights of its own an edit goes through the network with the source, whose rounding may then be another.
    unchanged = loaded.model.clone()
    unchanged.add_patches({KEY: (torch.zeros_like(unchanged.model.state_dict()[KEY]),)}, 0.5)
    plain, lora = (listened(loaded, inverted("stem"), settings, model=model) for model in (unchanged, with_lora))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(plain.noise, lora.noise, strict=True))
    assert relative(lora.predictions[0], plain.predictions[0]) > 1e-4


def test_a_failure_in_the_source_pass_leaves_nothing_behind(loaded, video, with_lora):
    def fails(q, k, v, extra_options):
        if "stem_inversion_run" in extra_options and calls["fail"]:
            raise RuntimeError("stop")
        return v

    calls = {"fail": False}
    broken = loaded.model.clone()
    broken.set_model_attn1_output_patch(lambda n, extra_options: fails(n, n, n, extra_options))
    inversion = invert(broken, loaded.prompt(SOURCE), video, 2, "next")
    expected = edited(loaded, inversion, EVERYTHING, control=words(loaded, steps=2)).samples
    calls["fail"] = True
    for model in (loaded.model, with_lora):
        with pytest.raises(RuntimeError, match="stop"):
            edited(loaded, inversion, EVERYTHING, model=model, control=words(loaded, steps=2))
    calls["fail"] = False
    assert torch.equal(edited(loaded, inversion, EVERYTHING, control=words(loaded, steps=2)).samples, expected)


def test_a_checkpoint_that_was_loaded_twice_edits_as_one(loaded, inverted):
    config = loaded.model.model.model_config
    base = config.get_model({}, device=torch.device("cpu"))
    base.diffusion_model.load_state_dict(loaded.model.model.diffusion_model.state_dict())
    cpu = torch.device("cpu")
    second = comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)
    one, two = (edited(loaded, inverted("stem"), EVERYTHING, model=model) for model in (loaded.model, second))
    assert relative(two.samples, one.samples) < 1e-6
    assert loaded.model.model.current_patcher is None


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
    with pytest.raises(ValueError, match="cross-attention reads 81 tokens.* Disconnect it from the MODEL.$"):
        edited(loaded, inverted(), EVERYTHING, model=model, window=1.0)
    inversion = replace(inverted(), model=model)
    with pytest.raises(ValueError, match="Disconnect it from the MODEL that the INVERSION was made with"):
        edited(loaded, inversion, EVERYTHING, window=1.0)


def test_patches_on_the_model_of_the_inversion_are_refused_with_its_name(loaded, inverted):
    model = loaded.model.clone()
    model.set_model_attn1_patch(lambda n, context, value, extra_options: (n, context, value))
    with pytest.raises(ValueError, match="in the MODEL that the INVERSION was made with: .*token merging"):
        edited(loaded, replace(inverted(), model=model), EVERYTHING)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"self_window": 1.5}, "self-attention window runs from 0 to 1.5"),
        ({"latent_window": (0.8, 0.2)}, "latent blend's window starts at 0.8"),
        ({"steps": 3}, "3 steps do not match the inversion"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_computed(loaded, inverted, changes, message):
    with pytest.raises(ValueError, match=message):
        edited(loaded, inverted(), replace(EVERYTHING, **changes))
