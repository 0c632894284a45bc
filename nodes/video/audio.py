"""The sound of a span of a clip."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from torch import Tensor

from . import VideoError
from .container import DAMAGE, open_container, reason
from .frame_buffer import as_text, available_memory
from .timeline import Timeline

logger = logging.getLogger(__name__)

# Decoders of compressed sound need a run-up before they are exact; a second covers every codec in use.
_RUN_UP = 1
# Timestamps jitter by a container's tick; only a larger step than this (seconds) is a real gap.
_GAP = Fraction(1, 20)


def read_audio(
    source: str | io.BytesIO,
    name: str,
    begin: Fraction,
    length: Fraction,
    interrupt: Callable[[], None],
    timeline: Timeline | None = None,
) -> dict[str, Any] | None:
    """Sound of [begin, begin + length) seconds of container time: waveform [1, channels, samples] float32, sample_rate.

    Exactly as long as the span: silent where the file has none. More than two channels are mixed down to two, which
    is all that ComfyUI writes. None for a file without sound. `timeline`: one that knows the shifts of the pictures,
    where their timestamps start again.
    """
    for run_up in (None,) if timeline else (_RUN_UP, None):
        with open_container(source, name) as container:
            stream = next((stream for stream in container.streams.audio if _is_decodable(stream)), None)
            if stream is None:
                return None
            channels = min(stream.codec_context.layout.nb_channels, 2)
            needed = 4 * stream.sample_rate * channels * length
            if needed > available_memory():
                raise VideoError(
                    f"{name}: the sound of the returned frames would take {as_text(int(needed))}, which is more memory "
                    "than is free. The timestamps are probably damaged: convert the video, or lower frame_cap."
                )
            sink = _Waveform(stream.sample_rate, channels, begin, length)
            if run_up is None:
                _fill(sink, stream, interrupt, timeline)
                break
            if begin > run_up and _seek(container, stream, begin - run_up) and _fill(sink, stream, interrupt):
                break
    return {"waveform": finite(sink.samples).unsqueeze(0), "sample_rate": sink.sample_rate}


def cut_audio(audio: dict[str, Any] | None, begin: Fraction, length: Fraction) -> dict[str, Any] | None:
    """The span [begin, begin + length) seconds of an AUDIO, exactly as long: silent beyond its end."""
    if audio is None:
        return None
    rate = int(audio["sample_rate"])
    waveform = finite(audio["waveform"].float())
    first, count = round(begin * rate), round(length * rate)
    piece = waveform[..., first : first + count]
    return {"waveform": torch.nn.functional.pad(piece, (0, count - piece.shape[-1])), "sample_rate": rate}


def finite(samples: Tensor) -> Tensor:
    """Samples without NaN (silence instead) and infinity (full scale): ComfyUI cannot write them."""
    return torch.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)


class _Waveform:
    """Samples [channels, samples] of a span, filled piece by piece."""

    def __init__(self, sample_rate: int, channels: int, begin: Fraction, length: Fraction) -> None:
        self.sample_rate = sample_rate
        self.begin = begin
        self.samples = torch.zeros(channels, round(length * sample_rate))
        self._next: int | None = None

    def put(self, piece: Tensor, time: Fraction | None) -> bool:
        """Add samples [channels, n] that sound at `time`, or after the last. False: the span's end is passed."""
        position = round(-self.begin * self.sample_rate) if self._next is None else self._next
        if time is not None:
            stated = round((time - self.begin) * self.sample_rate)
            if self._next is None or abs(stated - position) > _GAP * self.sample_rate:
                position = stated
        self._next = position + piece.shape[1]
        first, last = max(position, 0), min(self._next, self.samples.shape[1])
        if first < last:
            self.samples[:, first:last] = piece[:, first - position : last - position]
        return self._next < self.samples.shape[1]


def _is_decodable(stream: AudioStream) -> bool:
    context = stream.codec_context
    return context is not None and bool(context.sample_rate) and context.layout.nb_channels > 0


def _seek(container: av.container.InputContainer, stream: AudioStream, time: Fraction) -> bool:
    try:
        container.seek(int(time / stream.time_base), stream=stream)
    except DAMAGE:
        return False
    return True


def _fill(
    sink: _Waveform, stream: AudioStream, interrupt: Callable[[], None], timeline: Timeline | None = None
) -> bool:
    """Decode into `sink` up to its end. False where the first sound came after its beginning: a seek went too far."""
    layout = "mono" if sink.samples.shape[0] == 1 else "stereo"
    resampler, setting, in_time = None, None, None
    for frame in _decode(stream, interrupt):
        time = None if frame.pts is None else frame.pts * Fraction(frame.time_base)
        if time is not None and timeline is not None:
            time = timeline.put(time, Fraction(frame.samples, frame.sample_rate))
        if in_time is None:
            in_time = time is not None and time <= sink.begin
        if setting != (setting := (frame.format.name, frame.layout.name, frame.sample_rate)):
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=sink.sample_rate)
        for piece in resampler.resample(frame):
            if not sink.put(torch.from_numpy(piece.to_ndarray()), time):
                return in_time
            time = None
    return bool(in_time)


def _decode(stream: AudioStream, interrupt: Callable[[], None]) -> Iterator[AudioFrame]:
    """Frames of sound. Damaged packets are left out: the pictures matter more than a gap in the sound."""
    damaged, packets = 0, stream.container.demux(stream)
    while True:
        interrupt()
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except DAMAGE as error:
            damaged, last_reason = damaged + 1, reason(error)
            continue
        if packet is None:
            break
        yield from frames
    if damaged:
        logger.warning("Video Load: %d audio packets are damaged and were left silent (%s).", damaged, last_reason)
