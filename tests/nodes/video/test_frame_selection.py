from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from itertools import count, islice

import pytest
from comfyui_stem.nodes.video import BrokenStreamError, VideoError
from comfyui_stem.nodes.video.container import ClipInfo
from comfyui_stem.nodes.video.frame_selection import (
    Selection,
    ShownFrame,
    exact_rate,
    expected_count,
    hold_until_next,
    result_rate,
    select_frames,
)
from hypothesis import given, settings
from hypothesis import strategies as st

BROADCAST_RATES = [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)]


def shown_at(times, last=Fraction(1, 25)):
    ends = [*times[1:], times[-1] + last]
    return [ShownFrame(index, begin, end) for index, (begin, end) in enumerate(zip(times, ends, strict=True))]


def constant(frames, rate):
    return shown_at([index / rate for index in range(frames)], 1 / rate)


def indices(shown, selection):
    return [frame.index for _, frame in select_frames(shown, selection)]


def indices_by_look_up(times, end, selection):
    """The rule once more, from the whole list of times at once."""
    if selection.start_unit == "frame":
        first = int(selection.start)
    else:
        first = bisect_right(times, selection.start) - 1 if selection.start < end else len(times)
    if first >= len(times):
        return []
    if selection.target_rate is None:
        chosen = list(range(first, len(times), selection.every_nth))
    else:
        origin = times[first] if selection.start_unit == "frame" else selection.start
        step = selection.every_nth / selection.target_rate
        wanted = [origin + k * step for k in range(int((end - origin) / step) + 2)]
        chosen = [bisect_right(times, time) - 1 for time in wanted if time < end]
    return chosen[: selection.frame_cap] if selection.frame_cap else chosen


gaps = st.lists(st.integers(1, 200), min_size=1, max_size=40)
rates = st.sampled_from([*BROADCAST_RATES, Fraction(24), Fraction(25), Fraction(7), Fraction(1000, 33)])
selections = st.builds(
    Selection,
    start=st.fractions(0, 3, max_denominator=1000),
    start_unit=st.just("seconds"),
    frame_cap=st.integers(0, 12),
    every_nth=st.integers(1, 5),
    target_rate=st.none() | rates,
) | st.builds(
    Selection,
    start=st.integers(0, 50).map(Fraction),
    start_unit=st.just("frame"),
    frame_cap=st.integers(0, 12),
    every_nth=st.integers(1, 5),
    target_rate=st.none() | rates,
)


@given(gaps, selections)
@settings(max_examples=300)
def test_frames_picked_one_by_one_are_those_looked_up_in_the_whole_list(gaps, selection):
    times = [Fraction(sum(gaps[:index]), 1000) for index in range(len(gaps))]
    shown = shown_at(times)
    picked = indices(iter(shown), selection)
    assert picked == indices_by_look_up(times, shown[-1].end, selection)
    assert picked == sorted(picked)
    assert not selection.frame_cap or len(picked) <= selection.frame_cap


@given(gaps, selections)
@settings(max_examples=100)
def test_a_picked_picture_is_the_one_on_screen_at_its_time(gaps, selection):
    shown = shown_at([Fraction(sum(gaps[:index]), 1000) for index in range(len(gaps))])
    for time, frame in select_frames(shown, selection):
        assert frame.begin <= time < frame.end


@given(st.integers(1, 200), rates, selections)
@settings(max_examples=300)
def test_the_expected_count_is_the_count(frames, rate, selection):
    assert expected_count(frames, rate, selection) == len(indices(constant(frames, rate), selection))


@pytest.mark.parametrize("rate", BROADCAST_RATES)
@pytest.mark.parametrize(
    "time_base", [Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 24000), Fraction(1001, 60000)]
)
def test_resampling_to_the_same_broadcast_rate_changes_nothing_over_10000_frames(rate, time_base):
    if time_base == Fraction(1001, 60000) and rate != Fraction(60000, 1001):
        time_base = 1 / rate
    info = ClipInfo("clip", 64, 48, rate, tick=time_base, first_pts=700)
    times = [info.time_of(700 + round(index / rate / time_base)) for index in range(10_000)]
    assert times == [index / rate for index in range(10_000)]
    shown = shown_at(times, 1 / rate)
    for typed in (float(rate), round(float(rate), 3), round(float(rate), 2)):
        assert indices(shown, Selection(target_rate=exact_rate(typed))) == list(range(10_000))


@pytest.mark.parametrize("rate", BROADCAST_RATES)
def test_halving_a_broadcast_rate_takes_every_second_frame_without_drift(rate):
    shown = constant(10_000, rate)
    assert indices(shown, Selection(target_rate=rate / 2)) == list(range(0, 10_000, 2))
    assert indices(shown, Selection(every_nth=2)) == list(range(0, 10_000, 2))


def test_film_becomes_video_by_repeating_every_fourth_frame():
    film = constant(9_600, Fraction(24000, 1001))
    picked = indices(film, Selection(target_rate=Fraction(30000, 1001)))
    assert len(picked) == 12_000
    assert picked == [k * 4 // 5 for k in range(12_000)]


def test_every_nth_applies_after_the_target_rate():
    clip = constant(60, Fraction(30))
    both = indices(clip, Selection(target_rate=Fraction(10), every_nth=2))
    assert both == indices(clip, Selection(target_rate=Fraction(10)))[::2] == list(range(0, 60, 6))


def test_variable_rate_shows_the_latest_frame_at_or_before_the_wanted_time():
    times = [Fraction(t, 1000) for t in (0, 90, 100, 101, 350)]
    shown = shown_at(times, Fraction(50, 1000))
    assert indices(shown, Selection(target_rate=Fraction(10))) == [0, 2, 3, 3]
    assert indices(shown, Selection(start=Fraction(99, 1000), start_unit="seconds")) == [1, 2, 3, 4]


def test_an_endless_clip_is_read_no_further_than_the_last_frame_returned():
    taken = []

    def endless():
        for index in count():
            taken.append(index)
            yield ShownFrame(index, Fraction(index), Fraction(index + 1))

    selection = Selection(start=Fraction(100), frame_cap=8, every_nth=3)
    assert indices(endless(), selection) == list(range(100, 124, 3))
    assert taken[-1] == 121


def test_a_clip_read_from_the_middle_keeps_its_own_numbers():
    middle = islice(constant(100, Fraction(25)), 60, None)
    assert indices(middle, Selection(start=Fraction(70), frame_cap=2)) == [70, 71]


def test_timestamps_at_another_rate_than_the_nominal_one_are_left_alone():
    info = ClipInfo("clip", 64, 48, Fraction(299, 10), tick=Fraction(1, 30))
    assert [info.time_of(k) for k in (0, 1, 300)] == [0, Fraction(1, 30), 10]


@pytest.mark.parametrize(
    ("typed", "exact"),
    [
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (24.0, Fraction(24)),
        (12.5, Fraction(25, 2)),
        (1.0, Fraction(1)),
        (0.1, Fraction(1, 10)),
        (0.0, None),
    ],
)
def test_a_typed_rate_means_the_exact_one(typed, exact):
    assert exact_rate(typed) == exact


def test_the_returned_rate_is_the_clips_or_the_target_divided_by_n():
    rate = Fraction(30000, 1001)
    times = [index * 3 / rate for index in range(10)]
    assert result_rate(times, rate, Fraction(1, 1000), Selection(every_nth=3)) == rate / 3
    grid = [Fraction(index, 6) for index in range(10)]
    assert result_rate(grid, rate, Fraction(0), Selection(every_nth=2, target_rate=Fraction(12))) == 6
    assert result_rate([Fraction(5)], rate, Fraction(0), Selection()) == rate


def test_the_returned_rate_of_a_variable_clip_is_its_mean():
    times = [Fraction(t, 1000) for t in (0, 90, 100, 101, 400)]
    assert result_rate(times, Fraction(30), Fraction(1, 1000), Selection()) == 10


def test_damaged_timestamps_neither_repeat_a_frame_for_ever_nor_stop_the_clip():
    shown = shown_at([Fraction(0), Fraction(1), Fraction(10**9)])
    with pytest.raises(VideoError, match="At 1.00 s one frame would be repeated for 999999999 s.*Set target_fps to 0"):
        indices(shown, Selection(target_rate=Fraction(10)))
    assert indices(shown, Selection(target_rate=Fraction(10), frame_cap=12)) == [0] * 10 + [1] * 2
    assert result_rate([frame.begin for frame in shown], Fraction(25), Fraction(0), Selection()) == 25


def test_a_frame_lasts_until_the_next_one_and_the_last_its_own_time():
    frames = [ShownFrame(k, Fraction(t), Fraction(t + 7)) for k, t in enumerate((0, 3, 2, 9))]
    assert [(f.begin, f.end) for f in hold_until_next(frames)] == [(0, 3), (3, 3), (3, 9), (9, 16)]


def test_frames_before_a_break_are_handed_over_before_it_is_reported():
    def breaking():
        yield ShownFrame(0, Fraction(0), Fraction(1))
        yield ShownFrame(1, Fraction(1), Fraction(2))
        raise BrokenStreamError("bad data")

    held = hold_until_next(breaking())
    assert [next(held).index, next(held).index] == [0, 1]
    with pytest.raises(BrokenStreamError):
        next(held)


@pytest.mark.parametrize("field", [{"every_nth": 0}, {"frame_cap": -1}, {"start": Fraction(-1)}])
def test_a_selection_of_nothing_is_refused_by_name(field):
    name = next(iter(field))
    with pytest.raises(VideoError, match=f"{name} is .* Use . or more"):
        Selection(**field)
