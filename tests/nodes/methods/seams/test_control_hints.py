"""ControlNets on an edit: every pass sees the hints of its own frames, and nothing is left on the user's objects."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.model_management
import comfy.t2i_adapter.adapter
import pytest
import torch
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero import edit as fatezero_edit
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.edit import edit as edit_by_fatezero
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.guidance import StepSchedule
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.control_hints import controlled_by
from comfyui_stem.nodes.methods.seams.refusals import check_conditioning
from comfyui_stem.nodes.methods.tokenflow import edit as tokenflow
from comfyui_stem.nodes.methods.tokenflow import memory
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowGuider, TokenFlowSettings, edit
from comfyui_stem.nodes.methods.tokenflow.passes import batch_passes
from comfyui_stem.stem_kernels.correspondence import batch_slices, propagation_plan
from comfyui_stem.tools.host.tiny_checkpoint import TINY_CHANNELS, TINY_TEXT_WIDTH, random_weights, unet_config
from comfyui_stem.tools.host.tiny_sd15 import TinySD15
from comfyui_stem.tools.measured.errors import relative_error as relative

FRAMES, STEPS = 3, 2
# Attention over all frames and no injection: what the host computes in one batch, where every frame is a keyframe.
EVERY_FRAME_A_KEYFRAME = TokenFlowSettings(
    cfg=3.0, batch_size=1, weights="surrounding", attention_injection=0.0, feature_injection=0.0
)


def tiny_controlnet():
    """A CONTROL_NET of random weights, from a checkpoint that the host's own loader reads."""
    config = TinySD15(unet_config(TINY_CHANNELS, TINY_TEXT_WIDTH)).unet_config
    network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, device="meta")
    return comfy.controlnet.load_controlnet_state_dict(random_weights(network, "", torch.float32, seed=5))


def tiny_adapter():
    """A T2I adapter of random weights. The host's own loader knows those for SD1.5's channel multipliers alone."""
    multipliers = unet_config(TINY_CHANNELS, TINY_TEXT_WIDTH)["channel_mult"]
    channels = [TINY_CHANNELS * multiplier for multiplier in multipliers]
    network = comfy.t2i_adapter.adapter.Adapter(
        cin=192, channels=channels, nums_rb=2, ksize=1, sk=True, use_conv=False, xl=False
    )
    network.load_state_dict(random_weights(network, "", torch.float32, seed=5))
    return comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact")


def tiny_control_lora():
    """A Control-LoRA: a ControlNet's own layers, and low-rank changes of copied ones."""
    whole = tiny_controlnet().control_model.state_dict()
    own = {
        key: value for key, value in whole.items() if key.startswith(("zero_convs", "input_hint", "middle_block_out"))
    }
    layer = "input_blocks.1.0.in_layers.2"
    rows, columns = whole[layer + ".weight"].flatten(1).shape
    generator = torch.Generator().manual_seed(5)
    own[layer + ".up"] = torch.randn(rows, 4, generator=generator) / 8
    own[layer + ".down"] = torch.randn(4, columns, generator=generator) / 8
    return comfy.controlnet.load_controlnet_state_dict({"lora_controlnet": torch.zeros(0), **own})


KINDS = {"ControlNet": tiny_controlnet, "Control-LoRA": tiny_control_lora, "T2I adapter": tiny_adapter}


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt("a hill"), video[:FRAMES, :, :, :8], STEPS, "next")


@pytest.fixture(autouse=True)
def _applied(caplog):
    """The host only logs it where a ControlNet does not fit the network."""
    yield
    # caplog.text holds what this phase logged, not what the test did.
    assert not [record for record in caplog.get_records("call") if "could not be applied" in record.getMessage()]


def hints(frames=FRAMES, size=(64, 64)):
    """IMAGE [frames, h, w, 3]; the mean of the hint of frame i is i / 10, with a pattern on it."""
    pattern = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(9))
    pattern = (pattern - pattern.mean()) / 10
    return torch.arange(frames)[:, None, None, None] / 10 + pattern


@pytest.fixture
def applied(loaded, host_nodes):
    """Positive and negative CONDITIONING through the host's Apply ControlNet."""

    def apply(control, image, strength=1.0, start=0.0, end=1.0, prompts=None):
        prompts = prompts or (loaded.prompt("a castle"), loaded.prompt("rain"))
        return host_nodes.ControlNetApplyAdvanced().apply_controlnet(*prompts, control, image, strength, start, end)

    return apply


@pytest.mark.parametrize(
    ("kinds", "count", "on"),
    [
        (["ControlNet"], FRAMES, "both"),
        (["ControlNet"], 1, "both"),
        (["ControlNet"], FRAMES, "positive"),
        (["Control-LoRA"], FRAMES, "both"),
        (["ControlNet", "T2I adapter"], FRAMES, "both"),
    ],
)
def test_where_every_frame_is_a_keyframe_the_edit_is_what_the_host_computes_itself(
    loaded, inversion, applied, kinds, count, on
):
    prompts = plain = loaded.prompt("a castle"), loaded.prompt("rain")
    for kind in kinds:
        prompts = applied(KINDS[kind](), hints(count), 0.7, prompts=prompts)
    if on == "positive":
        prompts = prompts[0], plain[1]
    ours = edit(loaded.model, inversion, *prompts, EVERY_FRAME_A_KEYFRAME)
    everything = install(loaded.model, FrameContextAttention(None))
    assert relative(ours, reconstruct(inversion, everything, *prompts, EVERY_FRAME_A_KEYFRAME.cfg)) < 1e-5
    assert relative(ours, edit(loaded.model, inversion, *plain, EVERY_FRAME_A_KEYFRAME)) > 1e-2


@pytest.fixture
def seen(monkeypatch):
    """Numbers of the frames whose hints the ControlNets were given, call by call."""
    calls = []
    original = comfy.cldm.cldm.ControlNet.forward

    def forward(self, x, hint, *more, **others):
        calls.append([round(10 * float(row.mean())) for row in hint.expand(len(x), -1, -1, -1)])
        return original(self, x, hint, *more, **others)

    monkeypatch.setattr(comfy.cldm.cldm.ControlNet, "forward", forward)
    return calls


@pytest.mark.parametrize(
    ("batch_size", "weights", "to_both"),
    [(2, "reference", True), (2, "surrounding", False), (3, "surrounding", True), (1, "reference", True)],
)
def test_every_pass_sees_the_hints_of_its_frames_and_the_source_none(
    loaded, inversion, host_nodes, seen, batch_size, weights, to_both
):
    # by the host's older node, which leaves it to the host to give the ControlNet to the negative prompt as well
    (positive,) = host_nodes.ControlNetApply().apply_controlnet(
        loaded.prompt("a castle"), tiny_controlnet(), hints(), 1
    )
    positive[0][1]["control_apply_to_uncond"] = to_both
    settings = TokenFlowSettings(batch_size=batch_size, weights=weights)
    edit(loaded.model, inversion, positive, loaded.prompt("rain"), settings)
    batches, expected = batch_slices(FRAMES, batch_size), []
    schedule = StepSchedule(inversion.timesteps, len(inversion.timesteps))
    guider = TokenFlowGuider(loaded.model, inversion, settings, schedule)
    for timestep in reversed(inversion.timesteps):
        keyframes = guider.keyframes_at(timestep)
        passes = batch_passes(batches, keyframes, propagation_plan(batches, keyframes, weights), True)
        frames = [keyframes, *(one.edit for one in passes if len(one.edit))]
        # one prompt after the other
        expected += [one.tolist() for one in frames for _ in range(2 if to_both else 1)]
    assert seen == expected


def test_what_the_keyframes_had_computed_is_right_with_a_controlnet_too(loaded, inversion, applied, monkeypatch):
    # Random keyframes leave near ties among the few tokens here, and rounding decides those.
    prompts, settings = (
        applied(tiny_controlnet(), hints(), 0.5),
        TokenFlowSettings(cfg=2.0, keyframes="centre", batch_size=2),
    )
    reused = edit(loaded.model, inversion, *prompts, settings)
    monkeypatch.setattr(
        tokenflow, "batch_passes", lambda batches, keyframes, plan, reuse: batch_passes(batches, keyframes, plan, False)
    )
    assert relative(reused, edit(loaded.model, inversion, *prompts, settings)) < 1e-5


@pytest.fixture
def fatezero(loaded, inversion):
    """FateZero Edit that takes nothing from the source, or (1.0) everything it can."""

    def run(prompts, window=0.0, model=loaded.model):
        source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in ("a hill", "a castle"))
        words = read_words(source, target, WordWishes(window=window), STEPS, "Test").control
        settings = FateZeroSettings(cfg=3.0, self_window=window)
        return edit_by_fatezero(model, inversion, *prompts, words, settings).samples

    return run


@pytest.mark.parametrize("count", [FRAMES, 1])
def test_fatezero_gives_the_frames_their_hints_and_the_source_none(loaded, inversion, applied, seen, fatezero, count):
    plain = [loaded.prompt("a castle"), loaded.prompt("rain")]
    (connected, _) = applied(tiny_controlnet(), hints(count))
    prompts = controlled_by(plain, connected, FRAMES, "Test")
    own = install(loaded.model, FrameContextAttention((0,)))
    assert relative(fatezero(prompts), reconstruct(inversion, own, *prompts, 3.0)) < 1e-5
    assert {len(call) for call in seen} == {FRAMES} and len(seen) == 2 * 2 * STEPS
    seen.clear()
    with_source = fatezero(prompts, 1.0)
    expected = list(range(FRAMES)) if count > 1 else [0] * FRAMES
    assert seen == [expected] * 2 * STEPS
    assert relative(with_source, fatezero(plain, 1.0)) > 1e-3


def test_fatezero_in_batches_gives_every_frame_its_hint(loaded, inversion, applied, seen, fatezero, monkeypatch):
    prompts = applied(tiny_controlnet(), hints(), 0.3)
    whole = fatezero(prompts, 1.0)
    seen.clear()
    monkeypatch.setattr(fatezero_edit, "frames_per_batch", lambda model, inversion: 2)
    assert relative(fatezero(prompts, 1.0), whole) < 1e-5
    batches = [list(range(FRAMES))[frames] for frames in batch_slices(FRAMES, 2)]
    # beside the source the positive prompt, then the negative one
    assert seen == [*batches, *batches] * STEPS


def test_a_conditioning_without_a_controlnet_is_refused_where_one_is_asked_for(loaded):
    with pytest.raises(ValueError, match="connected to controlnet has no ControlNet. Put Apply ControlNet"):
        controlled_by([loaded.prompt("a castle")], loaded.prompt(""), FRAMES, "Test")


def test_no_strength_is_no_controlnet(loaded, inversion):
    prompts = loaded.prompt("a castle"), loaded.prompt("rain")
    control = tiny_controlnet().copy().set_cond_hint(hints().movedim(-1, 1), 0.0)
    with_control = [[[embedding, {**options, "control": control}]] for ((embedding, options),) in prompts]
    settings = TokenFlowSettings(batch_size=2)
    # one goes through the network in several calls, the other in one
    assert relative(*(edit(loaded.model, inversion, *two, settings) for two in (with_control, prompts))) < 1e-3


def test_a_range_of_the_schedule_is_kept(loaded, inversion, applied, seen):
    first_half = applied(tiny_controlnet(), hints(), end=0.7)
    edit(loaded.model, inversion, *first_half, EVERY_FRAME_A_KEYFRAME)
    assert seen == 2 * [list(range(FRAMES))]  # of two steps, the noisy one, for both prompts


def test_keyframes_in_several_passes_get_the_hints_of_their_own_frames(loaded, inversion, applied, seen, monkeypatch):
    prompts, settings = applied(tiny_controlnet(), hints(), 0.5), TokenFlowSettings(cfg=2.0, batch_size=1)
    whole = edit(loaded.model, inversion, *prompts, settings)
    monkeypatch.setattr(memory, "KEYFRAMES_AT_ONCE", 2)
    assert seen[:2] == [list(range(FRAMES))] * 2
    seen.clear()
    assert relative(edit(loaded.model, inversion, *prompts, settings), whole) < 1e-5
    # of each cond
    assert seen[:4] == [[0, 1], [2], [0, 1], [2]]


class Failure(Exception):
    pass


def failing(model, error):
    """MODEL that raises in the first block of its decoder."""

    def fail(h, skip, options):
        raise error

    clone = model.clone()
    clone.set_model_output_block_patch(fail)
    return clone


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("Control-LoRA", None),
        ("Control-LoRA", comfy.model_management.InterruptProcessingException),
        ("ControlNet", Failure),
    ],
)
def test_nothing_is_left_on_a_controlnet_after_success_failure_and_interruption(
    loaded, inversion, applied, kind, error
):
    prompts = applied(KINDS[kind](), hints())
    prompts = applied(tiny_controlnet(), hints(1), prompts=prompts)
    controls = prompts[0][0][1]["control"], prompts[0][0][1]["control"].previous_controlnet
    before = [dict(vars(control)) for control in controls]
    settings = TokenFlowSettings(batch_size=2)
    if error is None:
        edit(loaded.model, inversion, *prompts, settings)
    else:
        with pytest.raises(error):
            edit(failing(loaded.model, error), inversion, *prompts, settings)
    for control, attributes in zip(controls, before, strict=True):
        assert vars(control).keys() == attributes.keys()
        assert all(vars(control)[name] is value for name, value in attributes.items())


@pytest.mark.parametrize("count", [2, 5])
def test_another_number_of_hints_than_frames_is_refused(loaded, applied, count):
    (positive, _) = applied(tiny_controlnet(), hints(1), prompts=applied(tiny_adapter(), hints(count)))
    with pytest.raises(ValueError, match=rf"positive conditioning has {count} hint images for 3 frames.*or one for"):
        check_conditioning(positive, "positive", "Test", FRAMES)


def test_a_mask_of_another_length_is_refused(applied):
    (positive, _) = applied(tiny_controlnet(), hints())
    positive[0][1]["control"].extra_concat_orig = [torch.zeros(2, 1, 8, 8)]
    with pytest.raises(ValueError, match="has 2 masks for 3 frames"):
        check_conditioning(positive, "positive", "Test", FRAMES)


def test_a_kind_that_may_hold_more_for_each_frame_is_refused(loaded):
    class ForEachFrame(comfy.controlnet.ControlNet):
        pass

    (entry,) = loaded.prompt("a castle")
    control = ForEachFrame().set_cond_hint(hints())
    with pytest.raises(ValueError, match=r"a kind that this pack does not know \(.*ForEachFrame\).*Load ControlNet"):
        check_conditioning([[entry[0], {**entry[1], "control": control}]], "positive", "Test", FRAMES)


def test_hooks_on_a_controlnet_are_refused(applied):
    (positive, _) = applied(tiny_controlnet(), hints())
    positive[0][1]["control"].extra_hooks = comfy.hooks.HookGroup()
    with pytest.raises(ValueError, match="carries hooks"):
        check_conditioning(positive, "positive", "Test", FRAMES)


def test_an_inversion_takes_no_controlnet(applied):
    (positive, _) = applied(tiny_controlnet(), hints())
    with pytest.raises(ValueError, match="has a ControlNet, which only edits take"):
        check_conditioning(positive, "source", "Test")
