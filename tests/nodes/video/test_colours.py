"""Colours and transparency come out as players show them."""

from __future__ import annotations

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from comfyui_stem.nodes.video import colours
from comfyui_stem.nodes.video.frame_selection import Selection
from comfyui_stem.nodes.video.loading import Look, load_clip
from comfyui_stem.nodes.video.sources import PicturesInMemory, VideoFile

RED = np.array([200, 40, 60]) / 255
# Weights of red and blue in luma (ITU-T H.273) by FFmpeg's number of the matrix.
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
BT709, BT601, BT2020, UNSAID = 1, 6, 9, 2


def codes_of(rgb, matrix, full=False, bits=8):
    """Y'CbCr of an R'G'B' colour in 0..1."""
    red, blue = WEIGHTS[matrix]
    luma = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    chroma = (rgb[2] - luma) / (2 - 2 * blue), (rgb[0] - luma) / (2 - 2 * red)
    unit, zero, half = 2 ** (bits - 8), 0 if full else 16, 128
    spans = (2**bits - 1,) * 3 if full else (219 * unit, 224 * unit, 224 * unit)
    base = (zero * unit, half * unit, half * unit)
    return [round(b + span * value) for b, span, value in zip(base, spans, (luma, *chroma), strict=True)]


def write_plain(path, colours, size, *, matrix=UNSAID, trc=2, primaries=2, full=None, form="yuv420p"):
    """A frame of one colour for each of some, given by their stored numbers, and what the file says of them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = *size, form
        tags = {"colorspace": matrix, "color_trc": trc, "color_primaries": primaries}
        tags |= {} if full is None else {"color_range": 2 if full else 1}
        for codes in colours:
            frame = av.VideoFrame(*size, form)
            for target in (stream.codec_context, frame):
                for name, value in tags.items():
                    if hasattr(target, name):  # older PyAV: on the codec alone
                        setattr(target, name, value)
            for plane, code in zip(frame.planes, codes, strict=True):
                kind = np.uint16 if "10le" in form else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, code, kind).tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def load(path, background=0.0):
    return load_clip(VideoFile(str(path), path.name), Selection(), look=Look(background=background))


def middle(clip):
    return clip.images[0].mean((0, 1)).numpy()


HD, SD, PORTRAIT, WIDE, PAL = (1280, 720), (640, 480), (720, 1280), (1280, 536), (720, 576)


@pytest.mark.parametrize(
    ("size", "tag", "meant"),
    [
        (HD, BT709, BT709),
        (HD, UNSAID, BT709),
        (PORTRAIT, UNSAID, BT709),
        (WIDE, UNSAID, BT709),
        (HD, BT601, BT601),
        (SD, UNSAID, BT601),
        (PAL, UNSAID, BT601),
        (SD, BT709, BT709),
        (SD, BT2020, BT2020),
    ],
)
@pytest.mark.parametrize("full", [None, False, True])
def test_a_colour_is_read_by_its_tags_and_without_them_as_players_do(tmp_path, size, tag, meant, full):
    path = tmp_path / "red.mp4"
    write_plain(path, [codes_of(RED, meant, bool(full))], size, matrix=tag, full=full)
    np.testing.assert_allclose(middle(load(path)), RED, atol=1.6 / 255)


def test_an_assumed_matrix_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load(write_plain(tmp_path / "red.mp4", [codes_of(RED, BT709)], HD))
    assert "red.mp4: its colour matrix is not given, so BT.709 is assumed" in caplog.text
    caplog.clear()
    load(write_plain(tmp_path / "told.mp4", [codes_of(RED, BT709)], HD, matrix=BT709))
    assert caplog.text == ""


def test_what_comfyui_saved_comes_back_as_it_was(tmp_path):
    """Save Video of older versions writes BT.601 of any size, without a tag, but with the workflow."""
    from comfy_api.latest import Types
    from comfy_api.latest._input_impl import VideoFromComponents

    images = torch.from_numpy(np.broadcast_to(RED, (2, 720, 1280, 3)).astype(np.float32))
    video = VideoFromComponents(Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(8)))
    video.save_to(str(tmp_path / "saved.mp4"), metadata={"prompt": {}})
    np.testing.assert_allclose(middle(load(tmp_path / "saved.mp4")), RED, atol=4 / 255)


def pq(nits):
    """The inverse of the PQ curve (SMPTE ST 2084)."""
    power = (np.asarray(nits) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits):
    """HLG (ITU-R BT.2100) of greys on a display of 1000 nits, whose system gamma is 1.2."""
    scene = (np.asarray(nits) / 1000) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


@pytest.mark.skipif(av.library_versions["libavfilter"] < (11,), reason="this FFmpeg cannot convert HDR")
@pytest.mark.parametrize(("curve", "trc"), [(pq, 16), (hlg, 18)])
def test_hdr_becomes_sdr_with_203_nits_as_white(tmp_path, caplog, curve, trc):
    nits = np.array([5, 20, 100, 203, 600])
    codes = [codes_of([code] * 3, BT2020, bits=10) for code in curve(nits)]
    if curve is pq:  # (200, 40, 60) of BT.709, by way of BT.2020
        codes.append(codes_of(pq(TO_BT2020 @ RED**2.4 * 203), BT2020, bits=10))
    path = write_plain(tmp_path / "hdr.mp4", codes, SD, matrix=BT2020, trc=trc, primaries=9, form="yuv420p10le")
    with caplog.at_level(logging.WARNING):
        shown = load(path).images.mean((1, 2)).numpy()
    assert "it is HDR" in caplog.text
    expected = np.minimum(1, nits / 203) ** (1 / 2.4)
    np.testing.assert_allclose(shown[: len(nits)], np.repeat(expected[:, None], 3, 1), atol=3 / 255)
    if curve is pq:
        np.testing.assert_allclose(shown[-1], RED, atol=9 / 255)  # swscale compresses strong colours a little


def test_hdr_is_said_where_ffmpeg_cannot_convert_it(tmp_path, caplog, monkeypatch):
    def unknown(*_):
        raise av.error.OptionNotFoundError(1, "Option not found")

    monkeypatch.setattr(colours, "graph_for", unknown)
    path = write_plain(tmp_path / "hdr.mp4", [(500, 512, 512)], SD, matrix=BT2020, trc=16, form="yuv420p10le")
    with caplog.at_level(logging.WARNING):
        load(path)
    assert "it is HDR (PQ), which this FFmpeg cannot convert" in caplog.text and "update PyAV" in caplog.text


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("clear.mov", "qtrle", "argb"),
        ("clear.mov", "prores_ks", "yuva444p10le"),
        ("clear.webm", "libvpx-vp9", "yuva420p"),
        ("clear.webm", "libvpx", "yuva420p"),
        ("clear.mkv", "ffv1", "yuva444p"),
        ("clear.apng", "apng", "rgba"),
        ("clear.mov", "png", "rgba"),
    ],
)
def test_what_is_transparent_shows_the_background_and_is_white_in_the_mask(tmp_path, name, codec, form):
    stored = np.zeros((48, 64, 4), np.uint8)
    stored[..., :3] = RED * 255
    stored[:, 32:, 3] = 255
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=8, options={"auto-alt-ref": "0"} if codec == "libvpx" else {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, form
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgba").reformat(format=form)))
        container.mux(stream.encode())
    for background in (0.0, 1.0):
        clip = load(tmp_path / name, background)
        assert clip.mask.shape == (3, 48, 64)
        left, right = clip.images[2, :, :28], clip.images[2, :, 36:]
        np.testing.assert_allclose(left, np.full(left.shape, background), atol=2 / 255)
        np.testing.assert_allclose(right, np.broadcast_to(RED, right.shape), atol=12 / 255)
        np.testing.assert_allclose(clip.mask[2, :, :28], 1, atol=2 / 255)
        np.testing.assert_allclose(clip.mask[2, :, 36:], 0, atol=2 / 255)


def test_half_transparent_pictures_are_mixed_and_an_opaque_clip_has_one_black_mask(tmp_path):
    images = torch.full((4, 16, 24, 3), 0.8)
    opaque = load_clip(PicturesInMemory(images, Fraction(8), None, "it"), Selection())
    assert torch.equal(opaque.mask, torch.zeros(1, 16, 24))
    alpha = torch.full((4, 16, 24, 1), 0.25)
    with_alpha = PicturesInMemory(torch.cat([images, alpha], -1), Fraction(8), None, "it")
    beside = PicturesInMemory(images, Fraction(8), None, "it", alpha)
    for source in (with_alpha, beside):
        clip = load_clip(source, Selection(), look=Look(background=1.0))
        assert torch.allclose(clip.images, torch.full((4, 16, 24, 3), 0.25 * 0.8 + 0.75), atol=1e-6)
        assert torch.allclose(clip.mask, torch.full((4, 16, 24), 0.75))
