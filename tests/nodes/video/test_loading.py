from __future__ import annotations

import gc
import io
import logging
import random
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from comfyui_stem.nodes.video import VideoError, frame_buffer
from comfyui_stem.nodes.video.frame_buffer import FrameBuffer
from comfyui_stem.nodes.video.frame_selection import Selection
from comfyui_stem.nodes.video.loading import Look, load_clip
from comfyui_stem.nodes.video.resizing import Framing
from comfyui_stem.nodes.video.sources import PicturesInMemory, VideoFile
from comfyui_stem.tools.robustness.inputs.clip_factory import LOSSLESS, NTSC_FILM, read_number, write_clip
from PIL import Image

GROUPS = {"g": "24", "bf": "2", "b_strategy": "0", "crf": "10"}


def load(path, selection=None, width=0, height=0, fit="stretch", **callbacks):
    source = VideoFile(path if isinstance(path, io.BytesIO) else str(path), "clip")
    return load_clip(source, selection or Selection(), width, height, Look(Framing(fit)), **callbacks)


def numbers(clip):
    return [read_number(image) for image in clip.images]


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "lossless.mkv", 48, **LOSSLESS)


def test_images_are_float_frames_between_0_and_1_that_come_back_as_the_same_bytes(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = np.stack([levels, levels[::-1], levels.T], axis=-1)
    clip = load(write_clip(tmp_path / "levels.mkv", 1, size=(16, 16), pictures=[picture], **LOSSLESS))
    assert clip.images.shape == (1, 16, 16, 3)
    assert clip.images.dtype == torch.float32
    assert clip.images.min() == 0 and clip.images.max() == 1
    for to_bytes in (lambda image: (image * 255).byte(), lambda image: (image * 255).round().byte()):
        np.testing.assert_array_equal(to_bytes(clip.images[0]).numpy(), picture)


def test_a_selection_is_returned_with_its_rate_and_sound(tmp_path):
    sound = np.linspace(-0.5, 0.5, 16000)[None]
    path = write_clip(tmp_path / "sound.mov", 48, rate=Fraction(24), audio=sound, options=GROUPS)
    clip = load(path, Selection(Fraction(12), "frame", 5, 2), width=32, height=24)
    assert numbers(clip) == [12, 14, 16, 18, 20]
    assert clip.images.shape == (5, 24, 32, 3)
    assert clip.rate == 12
    # Five frames at 12 a second from 0.5 s on.
    assert clip.audio["waveform"].shape[-1] == round(5 / 12 * 8000)
    assert clip.audio["waveform"][0, 0, 0].item() == pytest.approx(sound[0, 4000], abs=1e-3)


def test_repeated_frames_are_the_same_picture(lossless):
    clip = load(lossless, Selection(frame_cap=8, target_rate=NTSC_FILM * 2))
    assert numbers(clip) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(clip.images[0], clip.images[1])
    assert clip.rate == NTSC_FILM * 2


def test_a_variable_rate_gives_its_mean_and_the_sound_of_the_same_span(tmp_path):
    times = [0, 20, 120, 220, 500, 600]
    path = write_clip(tmp_path / "variable.mp4", 6, times=times, audio=np.zeros((1, 8000)), audio_codec="aac")
    clip = load(path, Selection(frame_cap=5))
    assert clip.rate == Fraction(4, 1) / Fraction(1, 2)
    assert clip.audio["waveform"].shape[-1] == round(5 / 8 * 8000)


def test_one_frame_is_a_clip(tmp_path):
    clip = load(write_clip(tmp_path / "one.mp4", 1))
    assert clip.images.shape == (1, 48, 64, 3)
    assert clip.rate == NTSC_FILM


def test_the_number_of_frames_and_their_memory_are_said_before_decoding(lossless, caplog):
    caplog.set_level(logging.INFO)
    said = []
    load(lossless, Selection(Fraction(8), "frame", 0, 2), interrupt=lambda: said.append(caplog.text))
    # 20 frames of 64·48·3 floats.
    assert "clip (64x48, 23.976 fps): about 20 frames of 64x48 will be read and take 0.7 MB of memory" in caplog.text
    assert "about 20 frames" in said[0]


@pytest.mark.parametrize(("selection", "expected"), [(Selection(), 48), (Selection(frame_cap=10, every_nth=3), 10)])
def test_progress_counts_up_to_the_number_expected(lossless, selection, expected):
    steps = []
    load(lossless, selection, progress=lambda done, of: steps.append((done, of)))
    assert steps == [(done, expected) for done in range(expected + 1)]


def test_an_interrupt_stops_the_decoding(lossless):
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(lossless, interrupt=interrupt)
    assert len(calls) == 5


def frames_alive():
    return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())


def test_frames_are_let_go_one_by_one(lossless):
    alive = []
    gc.collect()
    gc.disable()
    try:
        load(
            lossless,
            Selection(frame_cap=24),
            width=32,
            height=24,
            progress=lambda done, expected: alive.append(frames_alive()),
        )
    finally:
        gc.enable()
    assert 1 <= max(alive) < 10


def test_too_little_memory_is_refused_before_decoding(lossless, monkeypatch):
    monkeypatch.setattr(frame_buffer, "available_memory", lambda: 400_000)
    decoded = []
    with pytest.raises(VideoError, match=r"48 frames of 64x48 need 1.8 MB.*only 0.4 MB.*Lower frame_cap to 10 or less"):
        load(lossless, interrupt=lambda: decoded.append(1))
    assert not decoded
    assert len(load(lossless, Selection(frame_cap=10)).images) == 10
    monkeypatch.setattr(frame_buffer, "available_memory", lambda: 1000)
    with pytest.raises(VideoError, match="Choose a smaller size"):
        load(lossless)


def test_more_frames_than_the_file_claims_still_fit():
    buffer = FrameBuffer(2, (8, 8), "clip")
    for value in range(20):
        buffer.append(np.full((8, 8, 3), value, np.uint8))
    assert [round(image[0, 0, 0].item() * 255) for image in buffer.images()] == list(range(20))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(Fraction(48)), r"has 48 frames \(2.00 s\), numbered from 0.*from frame 48 on.*start below 48"),
        (Selection(Fraction(10**6)), r"has 48 frames \(2.00 s\).*from frame 1000000 on"),
        (Selection(Fraction(5, 2), "seconds"), r"is 2.00 s long.*from 2.5 s on.*start below 2.00 s"),
        (Selection(Fraction(9), "seconds", target_rate=Fraction(10)), r"is 2.00 s long.*from 9 s on"),
    ],
)
def test_a_start_beyond_the_end_is_refused_with_the_clips_length(lossless, selection, message):
    with pytest.raises(VideoError, match=message):
        load(lossless, selection)


def as_png(path):
    Image.new("RGB", (64, 48), "red").save(path, "png")


def as_jpeg(path):
    Image.new("RGB", (64, 48), "red").save(path, "jpeg")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("This is a text.\n" * 100),
        lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
        as_png,
        as_jpeg,
    ],
    ids=["text", "noise", "png", "jpeg"],
)
def test_what_is_not_a_video_is_refused(tmp_path, make):
    make(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="clip is not a readable video, whatever its name says"):
        load(tmp_path / "clip.mp4")


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile other.ts\n", "#EXTM3U\n#EXTINF:1,\nother.ts\n"])
def test_a_playlist_under_a_videos_name_does_not_open_other_files(tmp_path, playlist):
    write_clip(tmp_path / "other.ts", 4)
    (tmp_path / "clip.mp4").write_text(playlist)
    with pytest.raises(VideoError, match="is not a readable video"):
        load(tmp_path / "clip.mp4")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match=r"clip is empty \(0 bytes\).*upload"):
        load(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="is empty"):
        load(io.BytesIO())


def test_sound_alone_is_refused(tmp_path):
    path = write_clip(tmp_path / "both.mkv", 2, audio=np.zeros((1, 8000)))
    sound = tmp_path / "sound.mkv"
    with av.open(str(path)) as source, av.open(str(sound), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="clip contains sound but no video. Choose a video file"):
        load(sound)


def test_sound_with_a_cover_picture_is_refused(tmp_path):
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic.value
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        container.mux(cover.encode(av.VideoFrame(64, 48, "yuvj420p")))
    with pytest.raises(VideoError, match="clip contains sound but no video"):
        load(tmp_path / "clip.mp4")


@pytest.mark.parametrize("marked", [True, False])
def test_the_stream_that_players_show_is_read_not_the_first(tmp_path, marked):
    path = tmp_path / "preview-first.mkv"
    with av.open(str(path), "w") as container:
        preview, film = (container.add_stream("ffv1", rate=rate) for rate in (1, 8))
        preview.width, preview.height, film.width, film.height = (64, 48, 32, 24) if marked else (32, 24, 64, 48)
        if marked:  # the default one is shown even where it is smaller
            preview.disposition, film.disposition = Disposition(0).value, Disposition.default.value
        for stream, frames, value in ((preview, 1, 200), (film, 16, 50)):
            for _ in range(frames):
                grey = np.full((stream.height, stream.width, 3), value, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
            container.mux(stream.encode())
    clip = load(path)
    assert len(clip.images) == 16 and clip.rate == 8
    assert clip.images.mean() * 255 == pytest.approx(50, abs=2)


def test_a_video_without_a_frame_is_refused(tmp_path):
    with av.open(str(tmp_path / "clip.mp4"), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoError, match="clip contains a video stream with 0 frames"):
        load(tmp_path / "clip.mp4")


def test_a_first_frame_that_is_missing_is_named(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 24, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 40])
    with pytest.raises(VideoError, match="clip.*(first frame cannot be decoded|0 frames|cannot be opened).*cut off"):
        load(path)


def test_an_index_that_is_missing_is_named(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 48)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError, match="cut off"):
        load(path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lossless.mkv", LOSSLESS),
        ("reordered.mkv", {"options": GROUPS}),
        ("index-first.mp4", {"options": GROUPS, "container_options": {"movflags": "faststart"}}),
    ],
)
def test_a_clip_that_breaks_off_says_where_and_can_be_used_up_to_there(tmp_path, name, settings):
    path = write_clip(tmp_path / name, 96, **settings)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    with pytest.raises(VideoError, match=r"breaks off after [1-3]\.\d\d s of the 4.0\d s") as refusal:
        load(path)
    readable = int(str(refusal.value).split("set frame_cap to ")[1].split()[0])
    assert 20 < readable < 90
    # A reordered frame next to the break may be lost before one that is shown after it.
    assert numbers(load(path, Selection(frame_cap=readable)))[:-3] == list(range(readable))[:-3]
    with pytest.raises(VideoError, match="breaks off"):
        load(path, Selection(frame_cap=95))
    with pytest.raises(VideoError, match="0 of the requested frames could be read.*choose an earlier start"):
        load(path, Selection(Fraction(90)))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi"])
def test_damage_anywhere_gives_frames_or_a_reason(tmp_path, name):
    path = write_clip(tmp_path / name, 24, audio=np.zeros((1, 8000)), audio_codec="aac", options=GROUPS)
    whole = path.read_bytes()
    choose = random.Random(name)
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(choose.choice([1, 10, 100])):
            data[choose.randrange(len(data))] = choose.randrange(256)
        path.write_bytes(bytes(data[: choose.choice([len(data), choose.randrange(1, len(data))])]))
        try:
            clip = load(path, Selection(Fraction(choose.choice([0, 10])), "frame", choose.choice([0, 5])), 64, 48)
        except VideoError as error:
            assert len(str(error)) > 40
        else:
            assert len(clip.images) > 0


def test_pictures_in_memory_are_selected_like_a_file():
    images = torch.rand(20, 16, 24, 3)
    audio = {"waveform": torch.arange(2000.0).reshape(1, 1, 2000), "sample_rate": 1000}
    source = PicturesInMemory(images, Fraction(10), audio, "clip")
    clip = load_clip(source, Selection(Fraction(1), "seconds", 3, 2))
    assert torch.equal(clip.images, images[[10, 12, 14]])
    assert clip.rate == 5
    assert torch.equal(clip.audio["waveform"][0, 0], torch.arange(1000.0, 1600.0))
    half = load_clip(PicturesInMemory(images.half(), Fraction(10), None, "clip"), Selection(), 8, 8)
    assert half.images.shape == (20, 8, 8, 3) and half.images.dtype == torch.float32 and half.audio is None


@pytest.mark.parametrize("channels", [1, 2])
def test_grey_pictures_are_loaded_in_colour(channels):
    pictures = torch.rand(3, 8, 8, channels)
    images = load_clip(PicturesInMemory(pictures, Fraction(8), None, "it"), Selection()).images
    torch.testing.assert_close(images, pictures[..., [0, 0, 0]])


def test_no_pictures_in_memory_are_refused():
    with pytest.raises(VideoError, match="clip contains 0 frames"):
        PicturesInMemory(torch.zeros(0, 3, 0, 0), Fraction(10), None, "clip")
