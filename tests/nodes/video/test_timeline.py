"""Clips whose timestamps start again are one clip, with its sound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from comfyui_stem.nodes.video.frame_selection import Selection
from comfyui_stem.nodes.video.loading import load_clip
from comfyui_stem.nodes.video.sources import VideoFile
from comfyui_stem.nodes.video.timeline import Timeline
from comfyui_stem.tools.robustness.inputs.clip_factory import numbered_picture, read_number, write_clip
from hypothesis import given
from hypothesis import strategies as st

RATE, SOUND = 8, 32000
SIZE = (64, 48)


@given(
    parts=st.lists(st.tuples(st.integers(0, 10**6), st.integers(6, 30)), min_size=1, max_size=5),
    rate=st.sampled_from([8, 10]),
)
def test_parts_follow_each_other_without_a_gap_wherever_their_clocks_begin(parts, rate):
    timeline, length = Timeline(jumps=True), Fraction(1, rate)
    starts = [Fraction(start, 7) for start, _ in parts]
    put = [
        timeline.put(start + n * length, length)
        for start, (_, count) in zip(starts, parts, strict=True)
        for n in range(count)
    ]
    kept = [
        next_start - (start + count * length)
        for (_, count), start, next_start in zip(parts, starts, starts[1:], strict=False)
        if -(count - 1) * length - Fraction(1, 2) <= next_start - start - (count - 1) * length <= 10
    ]
    gaps = [after - before for before, after in zip(put, put[1:], strict=False)]
    # what may be the same recording (a pause, or jitter) keeps its times
    assert [gap for gap in gaps if gap != length and gap - length not in kept] == []


@pytest.mark.parametrize("time", [Fraction(1, 4), Fraction(21, 2)])
def test_jitter_and_pauses_are_no_new_recording(time):
    timeline = Timeline(jumps=True)
    assert [timeline.put(t, Fraction(1, 8)) for t in (Fraction(1, 2), time)] == [Fraction(1, 2), time]
    assert timeline.shifts == [0]


def test_only_formats_for_broadcasts_leap_forwards():
    for jumps, expected in ((True, Fraction(2, 8)), (False, Fraction(100))):
        timeline = Timeline(jumps)
        assert [timeline.put(Fraction(t), Fraction(1, 8)) for t in ("0", "1/8", "100")][-1] == expected


@pytest.fixture(scope="module", params=[0.0, 0.25, 3600.0])
def joined(request, tmp_path_factory):
    """Two transport streams joined byte by byte: frames 0 to 7 with a soft tone, 8 to 15 with a loud one.

    The second one's clock begins again, in the middle of the first one, or an hour later.
    """
    folder = tmp_path_factory.mktemp("joined")
    whole = b""
    for part, loudness in enumerate((0.05, 0.5)):
        tone = loudness * np.sin(np.arange(SOUND) * 2 * np.pi * 440 / SOUND)[None].astype(np.float32)
        path = write_clip(
            folder / f"{part}.ts",
            8,
            rate=Fraction(RATE),
            size=SIZE,
            options={"bf": "0", "g": "4"},
            pictures=[numbered_picture(8 * part + n, *SIZE) for n in range(8)],
            audio=tone,
            audio_codec="mp2",
            sample_rate=SOUND,
            container_options={
                "output_ts_offset": str(request.param / 8 * part if request.param == 4 else request.param * part)
            },
        )
        whole += path.read_bytes()
    (folder / "joined.ts").write_bytes(whole)
    return folder / "joined.ts"


@pytest.mark.parametrize(
    ("selection", "frames"),
    [
        (Selection(), range(16)),
        (Selection(target_rate=Fraction(8)), range(16)),
        (Selection(Fraction(10)), range(10, 16)),
        (Selection(Fraction(5, 4), "seconds"), range(10, 16)),
        (Selection(Fraction(1, 2), "seconds", 8), range(4, 12)),
        (Selection(Fraction(2), frame_cap=3), range(2, 5)),
    ],
)
def test_joined_recordings_are_one_clip(joined, selection, frames):
    clip = load_clip(VideoFile(str(joined), joined.name), selection)
    assert [read_number(frame) for frame in clip.images] == list(frames)
    assert clip.rate == RATE
    sound = clip.audio["waveform"][0, 0].reshape(len(frames), -1).square().mean(dim=1).sqrt()
    # an eighth of a second on either side of the joint is left to the coder
    for number, level in zip(frames, sound.tolist(), strict=True):
        if number not in (0, 7, 8, 15):
            assert level == pytest.approx((0.05 if number < 8 else 0.5) / 2**0.5, rel=0.1)
