"""What is noted of expectation-maximisation."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.methods.stem.fitting import FitKey, Fitting
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.stem_kernels.em import Bases, EMSettings
from comfyui_stem.tools.measured.quality.em_health import ObservedFitting, health


def test_evenly_and_surely_used_bases_have_the_perplexity_of_their_number():
    directions = torch.eye(4)
    tokens = 3 * directions.repeat(5, 1)
    found = health(tokens, Bases(directions, torch.full((4,), 5.0), directions), EMSettings(temperature=0.01))
    assert found["perplexity"] == pytest.approx(4)
    assert found["responsibility"] == pytest.approx(1)
    assert found["norm"] == pytest.approx(3)
    assert (found["tokens"], found["bases"], found["live"]) == (20, 4, 4)


def test_empty_bases_are_not_live_and_do_not_count_in_the_perplexity():
    directions = torch.eye(4)
    found = health(torch.ones(6, 4), Bases(directions, torch.tensor([3.0, 3, 0, 0]), directions), EMSettings())
    assert found["live"] == 2
    assert found["perplexity"] == pytest.approx(2)
    assert found["responsibility"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("preset", PRESETS)
def test_observing_changes_nothing(preset):
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    plain, observed = Fitting(PRESETS[preset]), ObservedFitting(PRESETS[preset])
    key = FitKey(timestep=51, layer=3)
    assert torch.equal(observed.fit(features, key).centres, plain.fit(features, key).centres)
    assert [(entry["layer"], entry["timestep"]) for entry in observed.log] == [(3, 51)]
