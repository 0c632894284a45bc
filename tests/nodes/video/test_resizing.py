from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from comfyui_stem.nodes.video.resizing import Framing, fit_picture, place, target_size
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SQUARE = Fraction(1)
FITS = ["crop", "pad", "stretch"]
sides = st.integers(1, 120)
aspects = st.sampled_from([SQUARE, Fraction(16, 15), Fraction(1, 2)])


@pytest.mark.parametrize(
    ("asked", "natural", "size"),
    [
        ((0, 0), (1920, 1080), (1920, 1080)),
        ((0, 0), (854, 480), (848, 480)),
        ((512, 0), (1920, 1080), (512, 288)),
        ((0, 512), (1080, 1920), (288, 512)),
        ((517, 333), (1920, 1080), (512, 328)),
        ((0, 0), (5, 3), (8, 8)),
        ((1, 7), (64, 64), (8, 8)),
    ],
)
def test_sides_follow_the_request_and_are_multiples_of_8(asked, natural, size):
    assert target_size(*asked, Fraction(natural[0]), natural[1]) == size


@given(sides, sides, aspects, sides, sides, st.sampled_from(FITS), st.sampled_from([np.uint8, np.float32]))
@settings(max_examples=200)
def test_any_picture_comes_out_at_the_asked_size_and_type(width, height, aspect, to_width, to_height, fit, dtype):
    size = target_size(to_width, to_height, width * aspect, height)
    picture = np.ones((height, width, 3), dtype)
    result = fit_picture(picture, aspect, size, Framing(fit))
    assert result.shape == (size[1], size[0], 3)
    assert result.dtype == dtype
    assert result.max() == 1


shares = st.floats(0, 1)


@given(sides, sides, aspects, sides, sides, st.sampled_from(["crop", "pad"]), shares, shares)
@settings(max_examples=200)
def test_crop_and_pad_keep_the_shape_of_what_they_show(width, height, aspect, to_width, to_height, fit, across, down):
    size = (to_width * 8, to_height * 8)
    placement = place(width, height, aspect, size, Framing(fit, across, down))
    left, top, right, bottom = placement.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    scale_x = placement.inner[0] / (right - left) / aspect
    scale_y = placement.inner[1] / (bottom - top)
    assume(min(placement.inner) > 1)  # a sliver is shown one pixel wide
    rounded_to_pixels = 0 if fit == "crop" else 0.5 / (min(placement.inner) - 0.5)
    assert scale_x / scale_y == pytest.approx(1, abs=rounded_to_pixels + 1e-9)


def test_a_colour_comes_through_every_fit_unchanged():
    for value in (0, 1, 37, 128, 254, 255):
        picture = np.full((90, 160, 3), value, np.uint8)
        for fit in ("crop", Framing("stretch")):
            assert (fit_picture(picture, SQUARE, (56, 72), Framing(fit)) == value).all()


def test_crop_takes_the_middle_without_scaling_where_the_size_allows():
    picture = np.arange(10 * 27 * 3, dtype=np.uint8).reshape(10, 27, 3)
    np.testing.assert_array_equal(fit_picture(picture, SQUARE, (24, 8), Framing("crop")), picture[1:9, 1:25])


def test_crop_fills_and_pad_shows_everything():
    picture = np.full((40, 80, 3), 200, np.uint8)
    picture[:, :20] = picture[:, 60:] = 100
    assert (fit_picture(picture, SQUARE, (40, 40), Framing("crop")) == 200).all()
    padded = fit_picture(picture, SQUARE, (80, 80), Framing("pad"))
    assert (padded[:20] == 0).all() and (padded[60:] == 0).all()
    np.testing.assert_array_equal(padded[20:60], picture)


def test_pixels_that_are_not_square_are_shown_in_their_true_shape():
    # 720·576 pixels of 16:15 show 4:3, which fills 64·48 without a bar.
    picture = np.full((576, 720, 3), 90, np.uint8)
    assert (fit_picture(picture, Fraction(16, 15), (64, 48), Framing("pad")) == 90).all()
    assert (fit_picture(picture, SQUARE, (64, 48), Framing("pad")) == 0).any()


def test_shrinking_does_not_alias():
    checks = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for axis_size in ((32, 32), (32, 128), (128, 32)):
        small = fit_picture(np.repeat(checks[..., None], 3, axis=-1), SQUARE, axis_size, Framing("stretch"))
        assert np.abs(small[4:-4, 4:-4].astype(int) - 127.5).max() <= 8


def test_float_pictures_stay_within_0_and_1():
    picture = np.zeros((32, 32, 3), np.float32)
    picture[:, 16:] = 1
    result = fit_picture(picture, SQUARE, (72, 72), Framing("stretch"))
    assert result.min() == 0 and result.max() == 1
