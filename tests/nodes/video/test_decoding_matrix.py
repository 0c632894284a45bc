"""Every pair of what clips differ in: container, codec, pixel format, tags, timestamps, sound, rotation, streams.

What Video Load gives is compared with what was written, and with a second way of reading it: FFmpeg's own filters.
"""

from __future__ import annotations

import contextlib
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.filter import Graph
from comfyui_stem.nodes.video.filters import graph_for
from comfyui_stem.nodes.video.frame_selection import Selection
from comfyui_stem.nodes.video.loading import load_clip
from comfyui_stem.nodes.video.sources import VideoFile
from comfyui_stem.tools.robustness.inputs.clip_factory import set_display_matrix, write_audio

FRAMES, RATE, SAMPLES = 9, 25, 48000
SIZE = (64, 48)
CODECS = {
    "h264": ("libx264", {"crf": "1", "bf": "0"}),
    "h264 with B-frames": ("libx264", {"crf": "1", "bf": "2", "b_strategy": "0"}),
    "mpeg4": ("mpeg4", {"qmin": "1", "qmax": "2"}),
    "mpeg2": ("mpeg2video", {"qmin": "1", "qmax": "2"}),
    "vp9": ("libvpx-vp9", {"crf": "4", "b": "0", "cpu-used": "8", "deadline": "realtime"}),
    "ffv1": ("ffv1", {}),
    "prores": ("prores_ks", {}),
    "mjpeg": ("mjpeg", {"qmin": "1", "qmax": "2"}),
}
PIXELS = {
    "h264": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuvj420p"),
    "mpeg4": ("yuv420p",),
    "mpeg2": ("yuv420p", "yuv422p"),
    "vp9": ("yuv420p", "yuv444p"),
    "ffv1": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuva444p"),
    "prores": ("yuv422p10le", "yuva444p10le"),
    "mjpeg": ("yuvj420p", "yuvj422p"),
}
PIXELS["h264 with B-frames"] = PIXELS["h264"]
H264 = {"h264", "h264 with B-frames"}
CONTAINERS = {
    "mp4": H264 | {"mpeg4", "mpeg2", "vp9"},
    "mov": H264 | {"mpeg4", "prores", "mjpeg"},
    "mkv": set(CODECS),
    "webm": {"vp9"},
    "avi": {"h264", "mpeg4", "mjpeg", "ffv1"},
    "ts": H264 | {"mpeg2"},
    "mpg": {"mpeg2"},
    "flv": H264,
    "nut": H264 | {"mpeg4", "ffv1", "mjpeg"},
}
SOUNDS = {"mp4": "aac", "webm": "libopus", "ts": "mp2", "mpg": "mp2", "flv": "aac"}
# By what a file says: matrix and range in FFmpeg's numbers, None for nothing; and the matrix that is meant.
TAGS = {"none": (None, None, 5), "BT.709": (1, 1, 1), "BT.601": (6, 1, 5), "BT.709, full": (1, 2, 1)}
# When frames are shown, in frames of the rate.
TIMES = {
    "even": range(FRAMES),
    "negative": range(-5, FRAMES - 5),
    "late": range(RATE, RATE + FRAMES),
    "gap": (0, 1, 2, 3, 14, 15, 16, 17, 18),
    "variable": (0, 1, 3, 4, 7, 8, 12, 13, 15),
}
FACTORS = {
    "container": tuple(CONTAINERS),
    "codec": tuple(CODECS),
    "pixels": tuple(dict.fromkeys(form for forms in PIXELS.values() for form in forms)),
    "tags": tuple(TAGS),
    "times": tuple(TIMES),
    "sound": (True, False),
    "turned": (0, 90, 180, 270),
    "before": (False, True),
    "fields": (False, True),
}


def possible(container, codec, pixels, tags, times, sound, turned, before, fields):
    """Whether such a file can be made."""
    return (
        codec in CONTAINERS[container]
        and pixels in PIXELS[codec]
        # these formats, or their names, say it themselves
        and (tags == "none" or codec not in ("mjpeg", "mpeg4", "prores"))
        and (tags == "none" or container not in ("avi", "flv", "mpg", "nut"))
        and (tags in ("none", "BT.709, full") if pixels.startswith("yuvj") else tags != "BT.709, full")
        and (times == "even" or container != "mpg")
        and (times == "even" or container != "avi" or (codec != "h264" and times != "late"))
        and (times in ("even", "late") or codec != "mpeg2")
        and (times != "negative" or container in ("mkv", "nut"))  # elsewhere such pictures are never shown
        and (not fields or (codec == "mpeg2" or (codec in H264 and pixels == "yuv420p")))
        and (not fields or container in ("mp4", "mkv", "ts", "mpg"))
        and (turned == 0 or container in ("mp4", "mov"))
        and (not before or container == "mkv" or (container == "mov" and not turned))
    )


def pairwise():
    """Few cases that have every possible pair of values: again and again the one with most pairs that are missing."""
    cases = [case for case in itertools.product(*FACTORS.values()) if possible(*case)]
    pairs = {case: frozenset(itertools.combinations(enumerate(case), 2)) for case in cases}
    missing = frozenset().union(*pairs.values())
    while missing:
        best = max(cases, key=lambda case: len(pairs[case] & missing))
        missing -= pairs[best]
        yield dict(zip(FACTORS, best, strict=True))


CASES = list(pairwise())


def picture(number):
    """Four colours that change places from frame to frame, [h, w, 3] uint8."""
    colours = np.roll([[200, 40, 60], [40, 170, 80], [60, 70, 190], [210, 200, 190]], number, 0).astype(np.uint8)
    return colours.reshape(2, 2, 3).repeat(SIZE[1] // 2, 0).repeat(SIZE[0] // 2, 1)


def onset(first):
    """Silence, and a tone that begins a fifth of a second after the `first` frame is shown: [1, samples]."""
    start, length = round((first / RATE + 0.2) * SAMPLES), round((first / RATE + 1.2) * SAMPLES)
    tone = 0.5 * np.sin(np.arange(length) * 2 * np.pi * 1000 / SAMPLES)
    return np.where(np.arange(length) < start, 0, tone).astype(np.float32)[None]


def opaque(pixels):
    """The opacity of pictures in a format: where it can be, the lower half is transparent."""
    alpha = np.full((SIZE[1], SIZE[0], 1), 255, np.uint8)
    if pixels.startswith("yuva"):
        alpha[SIZE[1] // 2 :] = 0
    return alpha


def write(folder, container, codec, pixels, tags, times, sound, turned, before, fields):
    path = folder / f"clip.{container}"
    name, options = CODECS[codec]
    marked = None
    if fields:
        options = options | {"flags": "+ildct+ilme" if codec == "mpeg2" else "+ildct"}
    matrix, span, meant = TAGS[tags]
    with av.open(str(path), "w") as file:
        if before:
            small = file.add_stream("ffv1" if container == "mkv" else "mpeg4", rate=RATE)
            small.width, small.height, small.pix_fmt = 16, 16, "yuv420p"
        stream = file.add_stream(name, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixels
        if before:
            small.disposition, stream.disposition = 0, av.stream.Disposition.default.value
        if matrix is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, span
        heard = None if not sound else file.add_stream(SOUNDS.get(container, "pcm_s16le"), rate=SAMPLES, layout="mono")
        if before:
            grey = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
            grey.pts, grey.time_base = TIMES[times][0], Fraction(1, RATE)
            file.mux(small.encode(grey))
            file.mux(small.encode())
        for number, time in enumerate(TIMES[times]):
            full = pixels.startswith("yuvj") or span == 2
            shown = np.concatenate([picture(number), opaque(pixels)], axis=-1)
            frame = av.VideoFrame.from_ndarray(shown, "rgba")
            frame = frame.reformat(format=pixels, dst_colorspace=meant, dst_color_range=2 if full else 1)
            if fields:
                marked = marked or graph_for(frame, ("setfield", "tff"))
                marked.push(frame)
                frame = marked.pull()
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if heard is not None:
            write_audio(file, heard, onset(TIMES[times][0]), SAMPLES)
    if turned:
        cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turned]
        set_display_matrix(path, (cosine, sine, -sine, cosine))
    return path


def second_reading(path, meant):
    """Pictures [n, h, w, 4] and times in seconds after the first, by FFmpeg's filters."""
    pictures, times, graph, turned = [], [], None, 0

    def pull():
        with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                pictures.append(np.rot90(graph.pull().to_ndarray(), turned))

    with av.open(str(path)) as file:
        stream = file.streams.best("video")
        for frame in file.decode(stream):
            if graph is None:
                graph, matrix = Graph(), "bt709" if meant == 1 else "bt601"
                exact = f"flags=accurate_rnd+full_chroma_int+full_chroma_inp:in_color_matrix={matrix}"
                chain = [graph.add_buffer(template=stream), graph.add("bwdif", "mode=send_frame:deint=interlaced")]
                chain += [graph.add("scale", exact), graph.add("format", "rgba"), graph.add("buffersink")]
                graph.link_nodes(*chain).configure()
                turned = frame.rotation // 90
            times.append(frame.pts * stream.time_base)
            graph.push(frame)
            pull()
        graph.push(None)
        pull()
    return np.stack(pictures), times


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_frames_times_sound_and_colours_are_those_of_the_file(tmp_path, case):
    path, shown_at = write(tmp_path, **case), TIMES[case["times"]]
    source = VideoFile(str(path), "clip")
    clip = load_clip(source, Selection())
    pictures = np.round(clip.images.numpy() * 255).astype(int)
    assert len(pictures) == FRAMES

    # against a second way of reading
    theirs, their_times = second_reading(path, TAGS[case["tags"]][2])
    theirs = np.round(theirs[..., :3] * (theirs[..., 3:] / 255))
    inside = [np.abs(np.arange(side) - side / 2 + 0.5) > 4 for side in pictures.shape[1:3]]
    inside = np.ix_(range(FRAMES), *map(np.flatnonzero, inside))  # not where ways to interpolate chroma differ
    assert np.abs(pictures - theirs)[inside].max() <= (8 if case["fields"] else 3)
    times = [frame.begin for frame in source.frames(Selection(), lambda: None)]
    if case["container"] != "mpg" and (case["container"], case["codec"]) != ("avi", "h264"):  # worked out while reading
        tick = source.info.tick
        assert all(abs(ours - (their - their_times[0])) <= tick for ours, their in zip(times, their_times, strict=True))

    # against what was written
    assert source.info.interlaced == case["fields"]
    assert all(
        abs(ours - Fraction(at - shown_at[0], RATE)) <= Fraction(1, 500)
        for ours, at in zip(times, shown_at, strict=True)
    )
    if case["times"] in ("even", "late", "negative"):
        assert clip.rate == RATE
    else:
        assert float(clip.rate) == pytest.approx((FRAMES - 1) * RATE / (shown_at[-1] - shown_at[0]), rel=0.01)
    for number, of_frame in enumerate(pictures):
        alpha = opaque(case["pixels"])
        written = np.rot90(picture(number) * (alpha // 255), -case["turned"] // 90)
        height, width = written.shape[:2]
        for y, x in itertools.product((height // 4, 3 * height // 4), (width // 4, 3 * width // 4)):
            assert np.abs(of_frame[y, x] - written[y, x].astype(int)).max() <= 8
    transparent = np.rot90(1 - opaque(case["pixels"])[..., 0] / 255, -case["turned"] // 90)
    assert np.abs(clip.mask.numpy() - transparent).max() < 0.02
    assert (clip.audio is not None) == case["sound"]
    if case["sound"]:
        heard = clip.audio["waveform"][0, 0].numpy()
        assert len(heard) == round(FRAMES / clip.rate * clip.audio["sample_rate"])
        start = np.argmax(np.abs(heard) > 0.1) / clip.audio["sample_rate"]
        assert start == pytest.approx(0.2, abs=0.03)


def test_the_cases_have_every_possible_pair_and_are_few():
    possible_pairs = {
        pair
        for case in itertools.product(*FACTORS.values())
        if possible(*case)
        for pair in itertools.combinations(enumerate(case), 2)
    }
    covered = {pair for case in CASES for pair in itertools.combinations(enumerate(case.values()), 2)}
    assert covered == possible_pairs and len(CASES) < 100
