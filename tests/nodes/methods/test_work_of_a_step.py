"""What one step of every sampler asks of a device: operations, waits of the host, bytes to and fro.

The device is a pretended one (tools/host/pretend_device.py). A step is the difference between runs of two and of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.sd
import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.edit import edit as edit_by_fatezero
from comfyui_stem.nodes.methods.fatezero.presets import PRESETS as FATEZERO
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.costs import Clock
from comfyui_stem.nodes.methods.inversion.inversion import Inversion, ModelIdentity, noise_levels
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import self_attention_layers
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings
from comfyui_stem.nodes.methods.tokenflow.edit import edit as edit_by_tokenflow
from comfyui_stem.tools.host import tiny_families
from comfyui_stem.tools.host.loaded_model import Loaded
from comfyui_stem.tools.host.pretend_device import moved, pretended

SOURCE, TARGET = "a red hill", "a red castle"
FRAMES = 3


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def loaded(request, loaded) -> Loaded:
    if request.param == "sd15":
        return loaded
    with torch.inference_mode():
        tiny_families.register()
        return Loaded(*comfy.sd.load_state_dict_guess_config(tiny_families.build("sdxl"))[:3])


@pytest.fixture(scope="module")
def prompts(loaded) -> dict[str, list]:
    with torch.inference_mode():
        return {text: loaded.prompt(text) for text in (SOURCE, TARGET, "")}


@pytest.fixture(scope="module")
def there(loaded) -> Loaded:
    """The checkpoint on the device."""
    with torch.inference_mode():
        return moved(loaded)


@dataclass(frozen=True)
class Work:
    """Of the second step of two. operations: for each self-attention layer; to_device, to_host: bytes."""

    operations: float
    waits: int
    to_host: int
    to_device: int


@pytest.fixture
def work(there, monkeypatch) -> Callable[[Callable[[], object]], Work]:
    """What a run of two steps does in the second one."""

    def of(run: Callable[[], object]) -> Work:
        seen = []

        def tick(clock, done: int) -> None:
            seen.append((device.operations.total(), device.waits.total(), device.to_host, device.to_device))

        monkeypatch.setattr(Clock, "tick", tick)
        with pretended() as device:
            run()
        operations, *others = (after - before for before, after in zip(*seen, strict=True))
        return Work(round(operations / len(self_attention_layers(there.model.model.diffusion_model)), 1), *others)

    return of


def method(there: Loaded, preset: str | None, frames_per_batch: int = 0) -> object:
    stem = preset and StemSelfAttention.from_settings(PRESETS[preset], frames_per_batch)
    return install(there.model, stem) if stem else there.model


def made_up(
    there: Loaded, prompts: dict, video: torch.Tensor, preset: str | None, frames_per_batch: int = 0
) -> Inversion:
    """An INVERSION of two steps, whose making is not counted."""
    timesteps = (251, 501)
    return Inversion(
        trajectory=torch.stack([video[:FRAMES]] * 3),
        timesteps=timesteps,
        sigmas=tuple(noise_levels(there.model, timesteps).tolist()),
        convention="next",
        source=prompts[SOURCE],
        model=method(there, preset, frames_per_batch),
        identity=ModelIdentity("any", None),
    )


def within(work: Work, **limits: float) -> None:
    """Operations may be a tenth more than were counted; waits and bytes may not."""
    over = {name: getattr(work, name) for name, limit in limits.items() if getattr(work, name) > limit}
    assert not over, f"{work} is more than {limits}"


OPERATIONS = {None: 57, "paper": 105, "paper_literal": 99, "reference_code": 134, "tokenflow": 104}


@pytest.mark.parametrize("preset", OPERATIONS)
def test_an_inversion_waits_to_keep_the_latents_to_check_them_and_once_for_all_bases(
    there, prompts, video, work, preset
):
    model, samples = method(there, preset), video[:FRAMES]
    found = work(lambda: invert(model, prompts[SOURCE], samples, 2, "next"))
    within(found, operations=OPERATIONS[preset], waits=2 if preset is None else 3, to_host=samples.nbytes)


def test_starting_from_tokens_moves_their_numbers_alone(there, prompts, video, work):
    def bytes_to_device(preset: str | None) -> int:
        model = method(there, preset)
        return work(lambda: invert(model, prompts[SOURCE], video[:FRAMES], 2, "next")).to_device

    layers = len(self_attention_layers(there.model.model.diffusion_model))
    # int64: which tokens, and where they belong
    assert 0 < bytes_to_device("paper") - bytes_to_device(None) <= layers * 2 * 256 * 8


def test_a_reconstruction_waits_to_check_the_latents_and_once_for_all_bases(there, prompts, video, work):
    with pretended():
        inversion = made_up(there, prompts, video, "paper")
    found = work(lambda: reconstruct(inversion, inversion.model, prompts[SOURCE]))
    within(found, operations=OPERATIONS["paper"], waits=2, to_host=0)


@pytest.mark.parametrize(("attention", "operations"), [("extended", 251), ("stem", 357)])
def test_tokenflow_waits_to_check_the_latents_and_to_know_its_step(there, prompts, video, work, attention, operations):
    stem = StemSelfAttention.from_settings(PRESETS["tokenflow"]) if attention == "stem" else None
    settings = TokenFlowSettings(batch_size=2, stem=stem, attention_injection=1.0, feature_injection=1.0)
    with pretended():
        inversion = made_up(there, prompts, video, "tokenflow")
    found = work(lambda: edit_by_tokenflow(there.model, inversion, prompts[TARGET], prompts[""], settings))
    within(found, operations=operations, waits=2, to_host=0)


@pytest.mark.parametrize(
    ("preset", "batch", "operations"), [("style", 3, 207), ("shape", 3, 300), ("style", 2, 566), ("shape", 2, 836)]
)
def test_fatezero_waits_to_check_the_latents_and_to_know_its_step(
    there, prompts, video, work, preset, batch, operations
):
    chosen = FATEZERO[preset]
    source, target = (read_prompt(there.clip, text, "a", "Test") for text in (SOURCE, TARGET))
    wishes = WordWishes("replace", 1.0, masks_source=True, masks_target=True, weights={"castle": 2.0})
    own = StemSelfAttention.from_settings(PRESETS["paper"])
    settings = FateZeroSettings(
        self_window=1.0, blend_self=chosen.blend_self, blend_latents=True, latent_window=(0.0, 1.0), own=own
    )
    words = read_words(source, target, wishes, 2, "Test").control
    with pretended():
        inversion = made_up(there, prompts, video, "paper", batch)
    prompts = prompts[TARGET], prompts[""]
    found = work(lambda: edit_by_fatezero(there.model, inversion, *prompts, words, settings))
    within(found, operations=operations, waits=2, to_host=0)
