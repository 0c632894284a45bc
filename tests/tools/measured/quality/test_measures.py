"""Measures of videos, where the answer is known in closed form."""

from __future__ import annotations

import random

import pytest
import torch
from comfyui_stem.tools.measured.quality import measures
from comfyui_stem.tools.small_model.rendered_clips import random_motion, random_scene, render
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def clip():
    rng = random.Random(5)
    return render(random_scene(rng), random_motion(rng), frames=4, side=64)


def noise(seed, frames=3, side=16):
    return torch.rand(frames, side, side, 3, generator=torch.Generator().manual_seed(seed))


@given(st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_the_psnr_of_a_region_is_that_of_the_error_there(inside, outside):
    region = torch.zeros(2, 16, 16, dtype=torch.bool)
    region[:, :5, 3:] = True
    truth = torch.zeros(2, 16, 16, 3)
    video = torch.where(region[..., None], torch.tensor(inside), torch.tensor(outside)).expand(-1, -1, -1, 3)
    for mask, error in ((region, inside), (~region, outside)):
        expected = -20 * torch.tensor(error, dtype=torch.float64).log10()
        assert measures.region_psnr(video, truth, mask) == pytest.approx(float(expected), abs=1e-4)


def test_the_psnr_of_everywhere_is_the_psnr():
    a, b = noise(0), noise(1)
    everywhere = torch.ones(a.shape[:3], dtype=torch.bool)
    assert measures.region_psnr(a, b, everywhere) == pytest.approx(measures.closeness(a, b)["psnr"], abs=1e-6)


def test_frames_without_the_region_do_not_count():
    a, b = noise(0), noise(1)
    region = torch.zeros(a.shape[:3], dtype=torch.bool)
    region[1] = True
    expected = measures.closeness(a[1:2], b[1:2])["psnr"]
    assert measures.region_psnr(a, b, region) == pytest.approx(expected, abs=1e-6)


def test_outside_a_mask_the_source_is_kept_and_the_seam_is_what_lies_near_the_border(clip):
    mask = torch.zeros(4, 64, 64)
    mask[:, 10:54, 10:54] = 1.0
    inside = clip.frames.clone()
    inside[1, 30:34, 30:34] = 0.5  # farther from the border than a seam reaches
    found = measures.mask_measures(inside, clip, clip, mask)
    same = measures.mask_measures(clip.frames, clip, clip, mask)
    assert found == same and same["psnr_kept"] == 100
    outside = clip.frames.clone()
    outside[1, 54:58, 20:24] = 0.5
    found = measures.mask_measures(outside, clip, clip, mask)
    assert found["psnr_kept"] < 90 and found["warp_seam"] > same["warp_seam"]


def test_a_rendered_clip_is_steady_along_its_own_motion_and_shuffled_frames_are_not(clip):
    own = measures.motion_measures(clip.frames, clip)
    shuffled = measures.motion_measures(clip.frames[[2, 0, 3, 1]], clip)
    assert own["warp_error"] < shuffled["warp_error"] / 4
    assert own["warp_error"] <= own["warp_error_all"]
    assert own["consistency"] > shuffled["consistency"]


def test_the_truth_is_the_best_edit(clip):
    truth = render(clip.scene.with_thing(colour="gray"), clip.motion, frames=4, side=64)
    (thing,) = truth.scene.things

    def classify(video):
        return {kind: [getattr(thing, kind)] * len(video) for kind in ("object", "style", "colour")}

    best = measures.edit_measures(truth.frames, truth, clip.masks, "colour", classify)
    unedited = measures.edit_measures(clip.frames, truth, clip.masks, "colour", classify)
    assert best["psnr"] == best["psnr_inside"] == 100
    assert best["ssim"] == pytest.approx(1)
    assert best["target_word"] == best["kept_words"] == 1
    assert unedited["psnr_outside"] > unedited["psnr"] > unedited["psnr_inside"]
    assert "target_word" not in measures.edit_measures(clip.frames, truth, clip.masks, "colour", None)


def test_shares_of_words():
    wanted = {"object": "car", "style": "flat", "colour": "red"}
    shown = {"object": ["car", "car", "key", "car"], "style": ["flat"] * 4, "colour": ["red", "blue", "red", "red"]}
    assert measures.word_shares(shown, wanted, "object") == {"target_word": 0.75, "kept_words": 0.75}
    assert measures.word_shares(shown, wanted, "style") == {"target_word": 1.0, "kept_words": 0.5}
