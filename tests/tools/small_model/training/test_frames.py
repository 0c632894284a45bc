import torch
from comfyui_stem.tools.small_model.training.frames import drawn, training_frames


def test_training_pictures_never_show_a_held_out_combination():
    scenes = [drawn(number, seed=0)[0] for number in range(2000)]
    assert not any(thing.held_out for scene in scenes for thing in scene.things)
    assert {len(scene.things) for scene in scenes} == {1, 2}
    assert training_frames(3).scenes == tuple(scenes[:3])


def test_the_same_seed_renders_the_same_pictures_and_more_of_them_change_none():
    few, many = training_frames(5), training_frames(8)
    assert torch.equal(few.pictures, many.pictures[:5])
    assert not torch.equal(few.pictures, training_frames(5, seed=1).pictures)
