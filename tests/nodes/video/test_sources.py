"""Every way of reading a clip must give the frames that reading it from the start gives."""

from __future__ import annotations

import io
import pathlib
import random
from bisect import bisect_right
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from comfyui_stem.nodes.video import sources
from comfyui_stem.nodes.video.frame_selection import Selection, ShownFrame, hold_until_next, select_frames
from comfyui_stem.nodes.video.sources import VideoFile
from comfyui_stem.tools.robustness.inputs.clip_factory import (
    LOSSLESS,
    NTSC_FILM,
    numbered_picture,
    read_number,
    set_display_matrix,
    write_clip,
)
from comfyui_stem.tools.robustness.inputs.clips import LONG, write

FRAMES = 120
GROUPS = {"g": "24", "keyint_min": "24", "sc_threshold": "0", "b_strategy": "0", "crf": "10"}
CLIPS = {
    "lossless.mkv": LOSSLESS,
    "reordered.mp4": {"options": {**GROUPS, "bf": "3"}},
    "reordered.mkv": {"options": {**GROUPS, "bf": "3"}},
    "reordered.ts": {"options": {**GROUPS, "bf": "3"}},
    "open-groups.mp4": {"options": {**GROUPS, "bf": "3", "x264-params": "open-gop=1"}},
    "open-groups.mkv": {"options": {**GROUPS, "bf": "3", "x264-params": "open-gop=1"}},
    "open-groups.ts": {"options": {**GROUPS, "bf": "3", "x264-params": "open-gop=1"}},
    "gradual-refresh.mp4": {"options": {**GROUPS, "x264-params": "intra-refresh=1"}},
    "gradual-refresh.ts": {"options": {**GROUPS, "x264-params": "intra-refresh=1"}},
    "hevc-open-groups.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=24:open-gop=1:log-level=none"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "qmin": "1", "qmax": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "qmin": "1", "qmax": "2"}},
    "reordered.avi": {"options": {"g": "12", "bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "24", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    "elementary.m2v": {"codec": "mpeg2video", "options": {"bf": "2", "qmin": "1", "qmax": "2"}, "format": "mpeg2video"},
    "reordered.flv": {"options": {**GROUPS, "bf": "2"}},
    "reordered.nut": {"options": {**GROUPS, "bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "24", "bf": "2", "qmin": "1", "qmax": "2"}},
    "av1.webm": {"codec": "libsvtav1", "size": (64, 64), "options": {"g": "24", "preset": "12", "crf": "20"}},
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "options": {"g": "24", "auto-alt-ref": "1", "lag-in-frames": "16", "crf": "20"},
    },
    "interlaced.ts": {"options": {**GROUPS, "bf": "2", "flags": "+ildct+ilme"}},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    made = {}

    def make(name):
        if name not in made:
            made[name] = str(write_clip(folder / name, FRAMES, **CLIPS[name]))
        return made[name]

    return make


def numbers(path, selection, decoded=None):
    """The numbers of the selected frames; `decoded` collects a mark for each frame that was decoded."""
    source = VideoFile(path, "clip")
    interrupt = (lambda: None) if decoded is None else (lambda: decoded.append(1))
    shown = hold_until_next(source.frames(selection, interrupt))
    return [read_number(source.picture(frame) / 255) for _, frame in select_frames(shown, selection)]


def whole_clip(selection):
    shown = (ShownFrame(index, index / NTSC_FILM, (index + 1) / NTSC_FILM) for index in range(FRAMES))
    return [frame.index for _, frame in select_frames(shown, selection)]


@pytest.mark.parametrize("name", [name for name in CLIPS if name.startswith(("reordered", "open", "hevc", "mpeg2"))])
def test_the_clips_hold_what_they_are_named_for(clips, name):
    with av.open(clips(name)) as container:
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    times = [pts for pts, _ in packets]
    assert name.endswith(".avi") or times != sorted(times)
    leading = [pts for place, (key, is_key) in enumerate(packets) if is_key for pts in times[place:] if pts < key]
    assert bool(leading) is name.startswith(("open", "hevc", "mpeg2"))


@pytest.mark.parametrize("name", CLIPS)
def test_reading_from_the_start_gives_every_frame_once(clips, name):
    assert numbers(clips(name), Selection()) == list(range(FRAMES))


@pytest.mark.parametrize("name", CLIPS)
def test_the_clips_own_rate_gives_every_frame_once(clips, name):
    assert numbers(clips(name), Selection(target_rate=NTSC_FILM)) == list(range(FRAMES))


@pytest.mark.parametrize("name", CLIPS)
def test_only_formats_that_time_every_picture_and_pair_it_with_a_packet_are_searched(clips, name):
    searched = name not in {"vp8.webm", "interlaced.ts", "mpeg2.mpg", "elementary.m2v", "reordered.avi", "mpeg4.avi"}
    assert VideoFile(clips(name), "clip").info.seekable is searched


@pytest.mark.parametrize("start", [1, 23, 24, 25, 47, 48, 70, 95, 96, 97, FRAMES - 1])
@pytest.mark.parametrize("name", CLIPS)
def test_a_frame_number_is_reached_exactly(clips, name, start):
    assert numbers(clips(name), Selection(start=Fraction(start), frame_cap=3)) == [*range(start, FRAMES)][:3]


@pytest.mark.parametrize("start", [1, 24, 46, 47, 48, 49, 95, 97, FRAMES - 1])
@pytest.mark.parametrize("name", CLIPS)
def test_a_time_is_reached_exactly(clips, name, start):
    within = (start + Fraction(1, 3)) / NTSC_FILM
    selection = Selection(start=within, start_unit="seconds", frame_cap=3)
    assert numbers(clips(name), selection) == [*range(start, FRAMES)][:3]


@pytest.mark.parametrize("name", CLIPS)
def test_any_selection_is_that_of_the_whole_clip(clips, name):
    choose = random.Random(name)
    for _ in range(12):
        unit = choose.choice(["frame", "seconds"])
        selection = Selection(
            start=Fraction(choose.randrange(FRAMES)) / (1 if unit == "frame" else NTSC_FILM),
            start_unit=unit,
            frame_cap=choose.choice([0, 1, 5]),
            every_nth=choose.choice([1, 1, 2, 7]),
            target_rate=choose.choice([None, None, NTSC_FILM, Fraction(10), Fraction(30000, 1001), Fraction(60)]),
        )
        assert numbers(clips(name), selection) == whole_clip(selection), selection


@pytest.mark.parametrize("unit", ["frame", "seconds"])
@pytest.mark.parametrize("name", ["reordered.mp4", "reordered.mkv", "reordered.ts", "open-groups.mp4"])
def test_a_late_start_decodes_from_the_keyframe_before_it_to_the_last_wanted_frame(clips, name, unit):
    start = Fraction(100) if unit == "frame" else (100 + Fraction(1, 3)) / NTSC_FILM
    decoded = []
    path = clips(name)
    source = VideoFile(path, "clip")
    frames = source.frames(Selection(start=start, start_unit=unit, frame_cap=3), lambda: decoded.append(1))
    picked = list(select_frames(hold_until_next(frames), Selection(start=start, start_unit=unit, frame_cap=3)))
    assert [read_number(source.picture(frame) / 255) for _, frame in picked] == [100, 101, 102]
    # Looking up a frame number reads packets, one call each, without decoding; in a transport stream, whose clock may
    # begin again, a time as well. The keyframe is number 96; a transport stream has no index, so that the seek lands
    # behind it and is tried again two seconds earlier.
    looked_up = FRAMES + 1 if unit == "frame" or name.endswith(".ts") else 0
    assert len(decoded) <= looked_up + (103 - 48 if name.endswith(".ts") else 103 - 96) + 1


def test_an_early_end_leaves_the_rest_undecoded(clips):
    decoded = []
    assert numbers(clips("reordered.mp4"), Selection(frame_cap=8, every_nth=2), decoded) == list(range(0, 16, 2))
    assert len(decoded) <= 17


def test_a_stream_without_true_keyframes_is_read_from_the_start(clips):
    decoded = []
    assert numbers(clips("gradual-refresh.mp4"), Selection(Fraction(60), "frame", 1), decoded) == [60]
    assert len(decoded) > 60


def test_frames_before_a_cut_by_edit_list_do_not_count(clips, tmp_path):
    data = bytearray(pathlib.Path(clips("reordered.mp4")).read_bytes())
    entry = data.index(b"elst") + 12
    media_time = int.from_bytes(data[entry + 4 : entry + 8], "big")
    data[entry + 4 : entry + 8] = (media_time + 10 * 1001).to_bytes(4, "big")
    path = tmp_path / "cut.mp4"
    path.write_bytes(bytes(data))
    assert numbers(str(path), Selection()) == list(range(10, FRAMES))
    for start in (1, 20, 38, 60, 100):
        calls = []
        assert numbers(str(path), Selection(Fraction(start), "frame", 2), calls) == [start + 10, start + 11]
    # No more than a look at every packet and a group of frames for the last start.
    assert len(calls) < FRAMES + 30


def test_a_packet_without_a_picture_does_not_shift_the_numbers(clips, monkeypatch):
    packets = sources._packets

    def with_an_empty_one(*arguments):
        for number, packet in enumerate(packets(*arguments)):
            yield packet
            if number == 52:
                yield SimpleNamespace(pts=packet.pts + 1, dts=packet.dts)

    monkeypatch.setattr(sources, "_packets", with_an_empty_one)
    assert numbers(clips("reordered.mp4"), Selection(Fraction(60), "frame", 3)) == [60, 61, 62]


def test_variable_rate_is_read_by_its_timestamps(tmp_path):
    choose = random.Random(1)
    times = [0]
    for _ in range(FRAMES - 1):
        times.append(times[-1] + choose.choice([20, 33, 50, 100]))
    for name in ("variable.mp4", "variable.mkv"):
        path = str(write_clip(tmp_path / name, FRAMES, times=times, options={**GROUPS, "bf": "2"}))
        for start in (Fraction(0), Fraction(1), Fraction(5, 2), Fraction(4)):
            selection = Selection(start=start, start_unit="seconds", target_rate=Fraction(10), frame_cap=15)
            wanted = [(start + Fraction(k, 10)) * 1000 for k in range(15)]
            assert numbers(path, selection) == [bisect_right(times, time) - 1 for time in wanted]
        for start in (0, 30, 77):
            assert numbers(path, Selection(Fraction(start), "frame", 3, 2)) == [start, start + 2, start + 4]


def test_packets_are_counted_where_the_file_does_not_say(clips):
    assert VideoFile(clips("reordered.mkv"), "clip").count_packets(lambda: None) == FRAMES


def test_a_buffer_is_read_like_a_file(clips):
    for name in ("reordered.mp4", "open-groups.mkv"):
        content = io.BytesIO(pathlib.Path(clips(name)).read_bytes())
        content.seek(100)
        assert numbers(content, Selection(Fraction(70), "frame", 3)) == [70, 71, 72]


@pytest.mark.parametrize("start", [0, 9990])
def test_of_ten_thousand_frames_only_the_wanted_ones_are_decoded(tmp_path, start):
    path, decoded = str(write("long.mp4", tmp_path)), []
    assert VideoFile(path, "clip").count(lambda: pytest.fail("reads the file to count its frames")) == LONG
    selection = Selection(start=Fraction(start), frame_cap=8)
    assert numbers(path, selection, decoded) == [number % 16 for number in range(start, start + 8)]
    # a frame number is looked up among the packets, one call each, without decoding; a few come from before the start
    assert len(decoded) <= (LONG if start else 0) + 2 * 8


@pytest.mark.parametrize(
    "matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]
)
def test_pictures_are_turned_and_mirrored_as_the_display_matrix_says(tmp_path, matrix):
    stored = numbered_picture(0b0000_0010_0110_1011, 64, 48)
    path = write_clip(tmp_path / "turned.mp4", 2, pictures=[stored] * 2, options={"crf": "0"})
    set_display_matrix(path, matrix)
    source = VideoFile(str(path), "clip")
    shown = source.picture(next(source.frames(Selection(), lambda: None)))
    a, b, c, d = matrix
    centres = {(16 * i + 8 - 32, 12 * j + 6 - 24): stored[12 * j + 6, 16 * i + 8] for i in range(4) for j in range(4)}
    height, width = shown.shape[:2]
    assert (width, height) == (source.info.width, source.info.height) == ((64, 48) if a else (48, 64))
    for (x, y), value in centres.items():
        at = shown[b * x + d * y + height // 2, a * x + c * y + width // 2]
        assert np.abs(at.astype(int) - value).max() < 8


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx264", "yuv420p10le", {"crf": "0"}),
        ("libx265", "yuv420p10le", {"x265-params": "lossless=1:log-level=none"}),
        ("prores_ks", "yuv422p10le", {}),
        ("ffv1", "yuv444p12le", {}),
        ("libx264", "yuvj420p", {"crf": "0"}),
        ("ffv1", "gray", {}),
    ],
)
def test_bit_depths_and_ranges_give_the_same_picture(tmp_path, codec, pix_fmt, options):
    greys = [np.full((48, 64, 3), value, np.uint8) for value in (0, 16, 100, 235, 255)]
    path = write_clip(tmp_path / "deep.mkv", 5, codec=codec, pix_fmt=pix_fmt, options=options, pictures=greys)
    source = VideoFile(str(path), "clip")
    for frame, grey in zip(source.frames(Selection(), lambda: None), greys, strict=True):
        picture = source.picture(frame)
        assert picture.dtype == np.uint8
        assert np.abs(picture.astype(int) - grey).max() <= 2


@pytest.mark.parametrize("size", [(65, 49), (1, 1), (7, 3)])
def test_odd_sizes_are_read(tmp_path, size):
    path = write_clip(tmp_path / "odd.mkv", 3, size=size, **LOSSLESS)
    source = VideoFile(str(path), "clip")
    pictures = [source.picture(frame) for frame in source.frames(Selection(), lambda: None)]
    assert [picture.shape for picture in pictures] == [(size[1], size[0], 3)] * 3


def test_the_shape_of_a_pixel_is_turned_with_the_picture(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_picture(1, 64, 48), format="rgb24")))
        container.mux(stream.encode(None))
    info = VideoFile(str(path), "clip").info
    assert (info.width, info.height, info.pixel_aspect) == (64, 48, Fraction(4, 3))
    set_display_matrix(path, (0, 1, -1, 0))
    info = VideoFile(str(path), "clip").info
    assert (info.width, info.height, info.pixel_aspect) == (48, 64, Fraction(3, 4))
