from itertools import product

import pytest
import torch
from comfyui_stem.tools.small_model.rendered_clips.sprites import TILE, brightness, sheet, sprite
from comfyui_stem.tools.small_model.rendered_clips.vocabulary import COLOURS, OBJECTS, STYLES


def test_the_sheet_holds_a_picture_for_every_object_and_style():
    tiles = sheet()
    assert tiles.shape == (len(OBJECTS), len(STYLES), 4, TILE, TILE)
    covered = (tiles[:, :, 3] > 0.5).float().mean(dim=(-1, -2))
    assert covered.min() > 0.1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_sprite_has_premultiplied_colour_in_range(style, colour):
    picture = sprite("car", style, colour)
    assert picture.shape == (4, TILE, TILE)
    assert picture.min() >= 0
    assert (picture[:3] <= picture[3:] + 1e-6).all()


@pytest.mark.parametrize("object, style", product(OBJECTS, [style for style in STYLES if style != "sketch"]))
def test_the_pixel_of_middle_brightness_gets_the_colour_itself(object, style):
    for colour, tone in COLOURS.items():
        picture = sprite(object, style, colour)
        solid = picture[3] > 0.99
        distance = (picture[:3, solid].T - torch.tensor(tone)).norm(dim=1)
        assert distance.min() < 0.1


def test_brightness_follows_the_rec_709_weights():
    drawn = torch.zeros(4, 1, 3)
    drawn[0, 0, 0] = drawn[1, 0, 1] = drawn[2, 0, 2] = 1
    torch.testing.assert_close(brightness(drawn)[0, 0], torch.tensor([0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("object", OBJECTS)
def test_a_sketch_is_lines_in_its_colour_on_white_paper(object):
    picture = sprite(object, "sketch", "blue")
    solid = picture[3] > 0.99
    colours = picture[:3, solid]
    bluish = (colours[2] - colours[0]) > 0.3
    assert 0.05 < bluish.float().mean() < 0.85
    assert (colours.amin(dim=0) > 0.9).float().mean() > 0.1
