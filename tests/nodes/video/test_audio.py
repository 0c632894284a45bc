from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from comfyui_stem.nodes.video import VideoError
from comfyui_stem.nodes.video.audio import cut_audio, read_audio
from comfyui_stem.tools.robustness.inputs.clip_factory import LOSSLESS, write_clip

RATE = 8000
SECONDS = 5


def ramp(channels=1, seconds=SECONDS):
    """Sound whose every sample tells its place: a slow ramp from -0.5 to 0.5, channels shifted apart."""
    line = np.linspace(-0.5, 0.5, seconds * RATE)
    return np.stack([line * (1 - channel / 10) for channel in range(channels)])


def clip_with(path, audio, **settings):
    return str(write_clip(path, 24 * SECONDS, rate=Fraction(24), audio=audio, sample_rate=RATE, **settings))


def read(path, begin, length):
    return read_audio(path, "clip", Fraction(begin), Fraction(length), lambda: None)


@pytest.mark.parametrize("name", ["sound.mkv", "sound.mov"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("span", [(0, 5), (0, Fraction(1, 24)), (Fraction(7, 24), 1), (3, Fraction(3, 2)), (4, 1)])
def test_the_cut_is_the_very_span_of_the_sound(tmp_path, name, channels, span):
    whole = ramp(channels)
    audio = read(clip_with(tmp_path / name, whole), *span)
    begin, count = round(span[0] * RATE), round(span[1] * RATE)
    assert audio["sample_rate"] == RATE
    assert audio["waveform"].dtype == torch.float32
    assert audio["waveform"].shape == (1, channels, count)
    # Matroska rounds times to a millisecond, 8 samples here; a sample is 1/40000 of the ramp.
    expected = torch.from_numpy(whole[:, begin : begin + count]).float()
    assert (audio["waveform"][0] - expected).abs().max() < 10 / (SECONDS * RATE) + 1e-4


@pytest.mark.parametrize(("codec", "name"), [("aac", "sound.mp4"), ("libmp3lame", "sound.mkv"), ("flac", "sound.mkv")])
def test_a_cut_from_the_middle_is_that_of_the_whole_decoded_sound(tmp_path, codec, name):
    time = np.arange(SECONDS * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * (200 + 40 * time) * time)[None]
    path = clip_with(tmp_path / name, tone, audio_codec=codec)
    whole = read(path, 0, SECONDS)["waveform"]
    piece = read(path, 3, 1)["waveform"]
    # The start is found to a container tick: compare at the best shift within it.
    errors = [(piece - whole[..., 3 * RATE + k : 4 * RATE + k]).abs().max() for k in range(-8, 9)]
    assert min(errors) < 2e-3
    assert piece.abs().max() > 0.4


def test_silence_fills_what_the_file_has_no_sound_for(tmp_path):
    path = clip_with(tmp_path / "short.mkv", np.full((1, 2 * RATE), 0.25))
    waveform = read(path, Fraction(3, 2), 2)["waveform"][0, 0]
    assert waveform.shape == (2 * RATE,)
    assert torch.allclose(waveform[: RATE // 2 - 16], torch.tensor(0.25), atol=1e-3)
    assert (waveform[RATE // 2 + 16 :] == 0).all()


def test_more_than_two_channels_are_mixed_down_to_two(tmp_path):
    path = clip_with(tmp_path / "surround.mkv", ramp(6))
    assert read(path, 1, 1)["waveform"].shape == (1, 2, RATE)


def test_a_file_without_sound_gives_none(tmp_path):
    assert read(str(write_clip(tmp_path / "silent.mkv", 4, **LOSSLESS)), 0, 1) is None


def test_sound_longer_than_memory_is_refused(tmp_path):
    path = clip_with(tmp_path / "sound.mkv", ramp())
    with pytest.raises(VideoError, match=r"the sound of the returned frames would take \d+.\d GB.*lower frame_cap"):
        read(path, 0, 10**10)


def test_damaged_sound_is_left_silent(tmp_path, caplog):
    path = tmp_path / "damaged.mkv"
    clip_with(path, ramp(), audio_codec="flac")
    data = bytearray(path.read_bytes())
    # Frames of FLAC begin with this sync code; every other one after the first few is spoilt.
    places = [place for place in range(len(data) - 1) if data[place] == 0xFF and data[place + 1] == 0xF8]
    for place in places[4::2]:
        data[place + 2 : place + 40] = bytes(38)
    path.write_bytes(bytes(data))
    audio = read(str(path), 0, SECONDS)
    assert audio["waveform"].shape == (1, 1, SECONDS * RATE)
    assert "left silent" in caplog.text


def test_sound_in_memory_is_cut_and_padded():
    audio = {"waveform": torch.arange(100.0).reshape(1, 2, 50), "sample_rate": 10}
    cut = cut_audio(audio, Fraction(3), Fraction(1))
    assert torch.equal(cut["waveform"], audio["waveform"][..., 30:40])
    assert cut_audio(audio, Fraction(4), Fraction(2))["waveform"].shape == (1, 2, 20)
    assert (cut_audio(audio, Fraction(9), Fraction(2))["waveform"] == 0).all()
    assert cut_audio(None, Fraction(0), Fraction(1)) is None


def test_rounded_timestamps_leave_no_seams(tmp_path):
    line = np.linspace(-0.5, 0.5, 44100)[None]
    path = str(write_clip(tmp_path / "sound.mkv", 24, rate=Fraction(24), audio=line, sample_rate=44100))
    steps = read(path, 0, 1)["waveform"][0, 0].diff()
    assert steps.abs().max() < 3 / 2**15


def test_a_gap_in_the_sound_is_silent_and_what_follows_keeps_its_place(tmp_path):
    path = str(tmp_path / "gap.mkv")
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for second in (0, 2):
            frame = av.AudioFrame.from_ndarray(np.full((1, RATE), 8192, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, second * RATE, Fraction(1, RATE)
            container.mux(stream.encode(frame))
    waveform = read(path, 0, 3)["waveform"][0, 0]
    assert torch.equal(waveform, torch.cat([torch.full((RATE,), 0.25), torch.zeros(RATE), torch.full((RATE,), 0.25)]))


def test_samples_that_comfyui_cannot_write_are_made_silent_or_full_scale(tmp_path):
    sound = np.linspace(-0.5, 0.5, 8000, dtype=np.float32)[None].copy()
    sound[0, 4000:4010], sound[0, 5000], sound[0, 6000] = np.nan, np.inf, -np.inf
    path = write_clip(tmp_path / "odd.mov", 24, rate=Fraction(24), audio=sound, audio_codec="pcm_f32le")
    expected = torch.nan_to_num(torch.from_numpy(sound), 0.0, 1.0, -1.0)
    found = read_audio(str(path), "odd", Fraction(0), Fraction(1), lambda: None)
    assert torch.equal(found["waveform"][0], expected)
    audio = {"waveform": torch.from_numpy(sound)[None], "sample_rate": 8000}
    assert torch.equal(cut_audio(audio, Fraction(0), Fraction(1))["waveform"][0], expected)
