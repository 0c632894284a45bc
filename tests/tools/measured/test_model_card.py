"""What `make card` draws and counts."""

from __future__ import annotations

import json

import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.measured import model_card
from comfyui_stem.tools.measured.model_card import samples
from comfyui_stem.tools.measured.quality.clips import KINDS, WORDS
from PIL import Image


def test_every_combination_of_words_is_asked_for_once_on_a_background_of_another_colour():
    scenes = samples.scenes(512)
    assert len({scene.things[0] for scene in scenes}) == 512
    assert all(scene.things[0].colour != scene.background.colour for scene in scenes)
    assert samples.scenes(20) == scenes[:20]
    assert {scene.background.texture for scene in scenes} >= {"plain", "striped"}


def test_shares_are_counted_by_kind_by_word_and_for_combinations_that_were_held_out():
    scenes = samples.scenes(512)
    seen = {kind: [getattr(scene.things[0], kind) for scene in scenes] for kind in KINDS}
    perfect = samples.judged(scenes, seen)
    assert perfect["all"] == dict.fromkeys([*KINDS, "all"], 1.0)
    seen["object"] = ["car" if word == "cat" else word for word in seen["object"]]
    found = samples.judged(scenes, seen)
    assert found["object"] == dict.fromkeys(WORDS["object"], 1.0) | {"cat": 0.0}
    assert found["all"]["object"] == found["all"]["all"] == 15 / 16 == 0.9375
    assert found["style"] == dict.fromkeys(WORDS["style"], 1.0)
    held_out = [scene.things[0] for scene in scenes if scene.things[0].held_out]
    expected = 1 - sum(thing.object == "cat" for thing in held_out) / len(held_out)
    assert found["held_out"]["object"] == pytest.approx(expected, abs=1e-4)


def test_the_command_writes_numbers_and_a_picture(tmp_path, capsys):
    checkpoint = locations.from_environment().checkpoint
    arguments = ["--samples=18", "--steps=1", f"--checkpoint={checkpoint}", f"--output={tmp_path}"]
    assert model_card.main(arguments) == 0
    found = json.loads((tmp_path / "model_card.json").read_text())
    assert (found["samples"], found["steps"]) == (18, 1) and 0 <= found["all"]["object"] <= 1
    assert Image.open(tmp_path / "model_card.jpg").size == (16 * 128, 128)
    assert "held_out" in capsys.readouterr().out


def test_a_missing_model_is_named(tmp_path, capsys):
    assert model_card.main([f"--checkpoint={tmp_path / 'none.safetensors'}"]) == 1
    assert "make train" in capsys.readouterr().out
