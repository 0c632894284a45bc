import random
from dataclasses import replace

import pytest
import torch
from comfyui_stem.tools.small_model.rendered_clips import (
    Background,
    Motion,
    Scene,
    Thing,
    random_motion,
    random_scene,
    render,
)
from comfyui_stem.tools.small_model.rendered_clips.motion import Path, Pose
from comfyui_stem.tools.small_model.rendered_clips.rendering import pixel_centres, render_frame
from torch.nn.functional import grid_sample

SEEDS = range(6)
STILL = Pose(0.5, 0.5, 0.6, 0.0)


def clip_of(seed, frames=5, side=64):
    rng = random.Random(seed)
    things = 1 + seed % 2
    return render(random_scene(rng, things), random_motion(rng, things), frames, side)


def one_thing(start, end, texture="plain", pan=(0.0, 0.0)):
    scene = Scene((Thing("star", "flat", "red"),), Background(texture, "blue"))
    return scene, Motion((Path(start, end, 0.0, 1.0),), pan)


def sampled(frame, flow):
    """A frame [H, W, c] read where the flow [H, W, 2] points."""
    side = frame.shape[0]
    places = (pixel_centres(side) + flow) / side * 2 - 1
    picture = frame.movedim(-1, 0)[None]
    return grid_sample(picture, places[None], padding_mode="border", align_corners=False)[0].movedim(0, -1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clip_has_frames_in_range_and_truth_of_matching_sizes(seed):
    clip = clip_of(seed)
    assert clip.frames.shape == (5, 64, 64, 3)
    assert 0 <= clip.frames.min() and clip.frames.max() <= 1
    assert clip.masks.shape == (5, 64, 64)
    assert clip.forward.shape == clip.backward.shape == (4, 64, 64, 2)
    assert clip.forward_seen.shape == clip.backward_seen.shape == (4, 64, 64)


@pytest.mark.parametrize("seed", SEEDS)
def test_frames_read_along_the_flow_are_the_neighbouring_frames_where_nothing_is_hidden(seed):
    clip = clip_of(seed, side=128)
    for n in range(4):
        for flow, seen, here, there in (
            (clip.forward[n], clip.forward_seen[n], clip.frames[n], clip.frames[n + 1]),
            (clip.backward[n], clip.backward_seen[n], clip.frames[n + 1], clip.frames[n]),
        ):
            error = (sampled(there, flow) - here).abs().mean(dim=-1)[seen]
            # what is left is interpolation of edges
            assert error.mean() < 0.012
            assert (error < 0.05).float().mean() > 0.93


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_and_backward_flow_are_inverse_where_both_are_seen(seed):
    clip = clip_of(seed)
    for n in range(4):
        back = sampled(clip.backward[n], clip.forward[n])
        total = (clip.forward[n] + back).norm(dim=-1)[clip.forward_seen[n]]
        assert total.median() < 1e-3


def test_the_flow_of_a_shifted_thing_is_its_shift_and_that_of_the_background_its_pan():
    side = 64
    scene, motion = one_thing(STILL, replace(STILL, x=0.5 + 4 / side), "striped", pan=(0.0, 2 / side))
    clip = render(scene, motion, 2, side)
    thing, rest = clip.masks[0], ~clip.masks[0]
    torch.testing.assert_close(clip.forward[0][thing], torch.tensor([4.0, 0.0]).expand(int(thing.sum()), 2))
    torch.testing.assert_close(clip.forward[0][rest], torch.tensor([0.0, 2.0]).expand(int(rest.sum()), 2))


def test_background_that_the_thing_uncovers_counts_as_hidden():
    side = 64
    scene, motion = one_thing(STILL, replace(STILL, x=0.5 + 8 / side))
    clip = render(scene, motion, 2, side)
    uncovered = clip.masks[0] & ~clip.masks[1]
    assert uncovered.any()
    assert not clip.backward_seen[0][uncovered].any()
    assert clip.backward_seen[0][~clip.masks[0] & ~clip.masks[1]].all()


def test_a_place_outside_of_the_frame_counts_as_hidden():
    side = 64
    scene, motion = one_thing(STILL, STILL, "checkered", pan=(4 / side, 0.0))
    clip = render(scene, motion, 2, side)
    assert not clip.forward_seen[0][:, -4:].any()
    assert not clip.backward_seen[0][:, :4].any()


def test_an_edited_scene_keeps_motion_flow_of_the_background_and_pixels_outside_of_the_masks():
    rng = random.Random(3)
    scene, motion = random_scene(rng), random_motion(rng)
    source = render(scene, motion, 4)
    target = render(scene.with_thing(object="car" if scene.things[0].object != "car" else "key"), motion, 4)
    # the faint pixels of soft outlines belong to no mask
    grown = torch.nn.functional.max_pool2d((source.masks | target.masks).float()[:, None], 9, stride=1, padding=4)[:, 0]
    outside = grown == 0
    assert outside.any()
    torch.testing.assert_close(source.frames[outside], target.frames[outside])
    assert not torch.equal(source.frames, target.frames)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_frame_equals_the_frame_of_the_clip_at_its_time(seed):
    clip = clip_of(seed)
    frame = render_frame(clip.scene, clip.motion, 0.5, 64)
    torch.testing.assert_close(frame.movedim(0, -1), clip.frames[2])


def test_the_last_thing_is_in_front():
    back, front = Thing("star", "flat", "red"), Thing("apple", "flat", "green")
    pose = Path(STILL, STILL, 0.0, 1.0)
    clip = render(Scene((back, front), Background("plain", "blue")), Motion((pose, pose), (0.0, 0.0)), 1, 64)
    alone = render(Scene((front,), Background("plain", "blue")), Motion((pose,), (0.0, 0.0)), 1, 64)
    centre = (0, slice(30, 34), slice(30, 34))
    torch.testing.assert_close(clip.frames[centre], alone.frames[centre])


def test_the_same_seed_gives_the_same_clip():
    assert torch.equal(clip_of(4).frames, clip_of(4).frames)
    assert not torch.equal(clip_of(4).frames, clip_of(5).frames)
