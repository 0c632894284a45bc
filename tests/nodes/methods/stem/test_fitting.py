"""How many bases are fitted, from where, and how often."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.replay import replayed
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import AttentionLayer
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.fitting import FitKey, Fitting
from comfyui_stem.nodes.methods.stem.run import StemRun
from comfyui_stem.nodes.methods.stem.scopes import Scope
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.stem_kernels.em import EMSettings, fit_bases
from comfyui_stem.tools.measured.errors import relative_error as relative

SETTINGS = StemSettings(em=EMSettings(num_bases=8))
KEY = FitKey(401, 3)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fitting(**changes):
    return Fitting(replace(SETTINGS, **changes))


def test_a_warm_start_goes_on_from_the_bases_that_were_kept():
    tokens, later = normal(60, 5), normal(60, 5, seed=1)
    run, scope = StemRun(lambda sigma: torch.tensor(401)), Scope(0, 0, slice(0, 1))
    layer, options = AttentionLayer(3, "input", 4, level=1), {"sigmas": torch.ones(1), "cond_or_uncond": [0]}
    first, second = (run.fit(fitting(warm_start=2), scope, layer, options, features) for features in (tokens, later))
    assert torch.equal(first.centres, fitting().fit(tokens, KEY).centres)
    expected = fit_bases(later, first.centres, replace(SETTINGS.em, iterations=2))
    assert torch.equal(second.centres, expected.centres)
    assert torch.equal(run.previous[3, 0, 0], second.centres)


def test_every_layer_cond_and_chunk_has_a_warm_start_of_its_own(loaded, video, monkeypatch):
    runs, start_run = [], StemSelfAttention.start_run
    monkeypatch.setattr(
        StemSelfAttention, "start_run", lambda self, model: runs.append(start_run(self, model)) or runs[-1]
    )
    settings = replace(SETTINGS, warm_start=1, scope="frame_chunks", scope_frames=3)
    invert(install(loaded.model, StemSelfAttention.from_settings(settings)), loaded.prompt("a"), video, 1, "next")
    assert [*runs[0].previous] == [(layer, 0, chunk) for layer in range(16) for chunk in range(2)]


def test_a_warm_start_changes_steps_after_the_first_a_little(loaded, video):
    def inverted(**changes):
        method = StemSelfAttention.from_settings(replace(SETTINGS, **changes))
        return invert(install(loaded.model, method), loaded.prompt("a hill"), video, 3, "next").trajectory

    cold, warm = inverted(), inverted(warm_start=1)
    assert torch.equal(warm[1], cold[1])
    assert 0 < relative(warm[-1], cold[-1]) < 0.1


def test_a_warm_start_does_not_outlive_a_run(loaded, video):
    model = install(loaded.model, StemSelfAttention.from_settings(replace(SETTINGS, warm_start=1)))
    runs = [invert(model, loaded.prompt("a hill"), video, 2, "next").trajectory for _ in range(2)]
    assert torch.equal(*runs)


def test_fatezero_refuses_an_inversion_with_a_warm_start(loaded):
    model = install(loaded.model, StemSelfAttention.from_settings(replace(SETTINGS, warm_start=1)))
    with pytest.raises(ValueError, match="made with warm_start.*Set warm_start of STEM Bases to 0"):
        replayed(model, FateZeroSettings().levels, 1)


def test_the_energy_to_be_explained_chooses_the_number_of_bases():
    tokens = normal(600, 3)
    sizes = [
        len(fitting(em=EMSettings(num_bases=128), explained_energy=target).fit(tokens, KEY).centres)
        for target in (0.3, 0.9, 0.0)
    ]
    assert sizes[0] < sizes[1] <= 128
    assert sizes[2] == 128


def test_the_choice_is_made_again_when_a_step_is_run_again():
    tokens = normal(600, 3)
    adaptive = fitting(em=EMSettings(num_bases=128), explained_energy=0.7)
    assert torch.equal(adaptive.fit(tokens, KEY).centres, adaptive.fit(tokens.clone(), KEY).centres)


@pytest.mark.parametrize(("frames", "kept"), [(3, [0, 1, 2]), (7, [0, 3, 6]), (9, [0, 4, 8])])
def test_anchor_frames_are_evenly_spaced(frames, kept):
    anchors = fitting(scope="anchor_frames", scope_frames=3)
    for parts in (1, 2, 3):
        split = torch.arange(frames).tensor_split(parts)
        assert torch.cat(anchors.frames_seen(*split)).tolist() == kept
        assert fitting().frames_seen(*split) == split
