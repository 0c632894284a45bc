import random
from itertools import product

import pytest
from comfyui_stem.tools.small_model.rendered_clips import Background, Scene, Thing, random_scene
from comfyui_stem.tools.small_model.rendered_clips.vocabulary import COLOURS, HELD_OUT_SHARE, OBJECTS, STYLES, held_out

APPLE = Thing("apple", "3d", "red")
CAR = Thing("car", "flat", "blue")
STRIPES = Background("striped", "green")


def test_the_vocabulary_has_at_least_12_objects_4_styles_and_8_colours():
    assert len(set(OBJECTS)) >= 12
    assert len(set(STYLES)) >= 4
    assert len(set(COLOURS)) >= 8


def test_a_caption_names_everything_that_is_seen():
    assert Scene((APPLE,), STRIPES).caption == "a 3d red apple on a striped green background"
    both = Scene((APPLE, CAR), STRIPES).caption
    assert both == "a 3d red apple and a flat blue car on a striped green background"


def test_held_out_combinations_are_about_one_in_eight_and_leave_every_word_to_training():
    combinations = list(product(OBJECTS, STYLES, COLOURS))
    kept = [words for words in combinations if not held_out(*words)]
    share = 1 - len(kept) / len(combinations)
    assert share == pytest.approx(1 / HELD_OUT_SHARE, abs=0.04)
    for position, words in enumerate((OBJECTS, STYLES, COLOURS)):
        assert {combination[position] for combination in kept} == set(words)
    # and every pair of object and style, so that its picture is known
    assert {words[:2] for words in kept} == set(product(OBJECTS, STYLES))


@pytest.mark.parametrize("wanted", [False, True])
def test_random_scenes_keep_to_the_asked_side_of_the_split(wanted):
    for seed in range(50):
        scene = random_scene(random.Random(seed), things=1 + seed % 2, held_out=wanted)
        assert all(thing.held_out == wanted for thing in scene.things)


def test_a_thing_never_has_the_colour_of_its_background():
    for seed in range(100):
        scene = random_scene(random.Random(seed), things=1 + seed % 2)
        assert scene.background.colour not in {thing.colour for thing in scene.things}


def test_with_thing_changes_only_the_words_that_are_given():
    scene = Scene((APPLE, CAR), STRIPES)
    changed = scene.with_thing(0, object="star")
    assert changed.things == (Thing("star", "3d", "red"), CAR)
    assert changed.background == scene.background
    assert scene.things[0] == APPLE
