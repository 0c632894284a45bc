"""`make train` from end to end, a few steps on a few pictures."""

from dataclasses import replace

import comfy.sd
import pytest
import torch
from comfyui_stem.tools import locations
from comfyui_stem.tools.small_model import training
from comfyui_stem.tools.small_model.training import autoencoder, classifier, denoiser
from PIL import Image

STEPS = 4


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(training, "VAE_FRAMES", 8)
    monkeypatch.setattr(training, "DENOISER_FRAMES", 8)
    monkeypatch.setattr(training, "PREVIEW_EVERY", STEPS)
    monkeypatch.setattr(training, "PREVIEW_STEPS", 2)
    for module in (autoencoder, classifier, denoiser):
        monkeypatch.setattr(module, "PLAN", replace(module.PLAN, steps=STEPS, warmup=2))
        monkeypatch.setattr(module, "BATCH", 2)


def train(folder, *arguments):
    return training.main([f"--folder={folder / 'training'}", f"--output={folder / 'finished'}", *arguments])


def test_it_leaves_a_checkpoint_that_the_host_loads_a_classifier_and_samples(tmp_path, capsys):
    assert train(tmp_path) == 0
    finished = tmp_path / "finished"
    assert {file.name for file in finished.iterdir()} == {locations.TRAINED.name, locations.CLASSIFIER.name}
    assert locations.TRAINED.name in capsys.readouterr().out
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(finished / locations.TRAINED.name))
    assert vae.decode(vae.encode(torch.rand(1, 128, 128, 3))).shape == (1, 128, 128, 3)
    shown = classifier.load_classifier(finished / locations.CLASSIFIER.name)(torch.rand(2, 128, 128, 3))
    assert {kind: len(words) for kind, words in shown.items()} == {"object": 2, "style": 2, "colour": 2}
    samples = tmp_path / "training" / f"samples_{STEPS:06d}.png"
    assert Image.open(samples).size == (8 * 128, 2 * 128)


def test_a_training_that_stopped_early_goes_on_elsewhere_from_the_file_that_it_left(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert train(here, "--steps=2") == 0
    assert not (here / "finished").exists()
    left = here / "training" / training.UNFINISHED
    assert train(there, f"--start={left}") == 0
    assert (there / "finished" / locations.TRAINED.name).is_file()
    # the VAE came with the file
    assert not (there / "training" / "vae.pt").exists()
    state = torch.load(there / "training" / "denoiser.pt", weights_only=True)
    assert state["step"] == STEPS
