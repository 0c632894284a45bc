"""From a decoded frame to the RGB that players show: colour matrix, range, HDR and opacity, by FFmpeg's swscale."""

from __future__ import annotations

from dataclasses import dataclass

import av
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .filters import graph_for, shape_of

# FFmpeg's numbers of ITU-T H.273: colour matrices, and the transfer functions of HDR with FFmpeg's names.
_BT709, _UNSPECIFIED, _BT601 = 1, 2, 5
_HDR = {16: ("PQ", "smpte2084"), 18: ("HLG", "arib-std-b67")}
# swscale's flags: bilinear, exact rounding, chroma interpolated at full width. Its fast ways are off by up to 3 of 255.
_EXACT = 0x2 | 0x40000 | 0x2000 | 0x4000
# Tags in which ComfyUI stores a workflow: its Save Video used to write BT.601 of any size, without saying so.
_COMFYUI_TAGS = {"prompt", "workflow"}


@dataclass(frozen=True)
class Colours:
    """What a clip's stored numbers mean.

    Attributes:
        untagged: the colour matrix of frames that do not say theirs.
        hdr: FFmpeg's name of an HDR clip's transfer function, else "".
        remark: what to tell the user of it, or "".
    """

    untagged: int = _BT601
    hdr: str = ""
    remark: str = ""


def colours_of(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> Colours:
    """The colours of a clip, by its first frame.

    Without a tag, players take HD (1280 pixels wide or more than 576 lines) to be BT.709, and the rest to be BT.601.
    """
    if stream.codec_context.color_trc in _HDR:
        curve, name = _HDR[stream.codec_context.color_trc]
        try:
            _to_sdr(frame, name)
        except av.error.FFmpegError:
            remark = f"it is HDR ({curve}), which this FFmpeg cannot convert, so it will look washed out; update PyAV"
            return Colours(remark=f"{remark} to 16 or newer, or convert the clip to SDR")
        return Colours(
            hdr=name, remark=f"it is HDR ({curve}); for SDR, 203 nits become white, and brighter light is clipped"
        )
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb or len(frame.format.components) < 3:
        return Colours()
    if (frame.width < 1280 and frame.height <= 576) or _COMFYUI_TAGS & set(container.metadata):
        return Colours()
    return Colours(_BT709, remark="its colour matrix is not given, so BT.709 is assumed, as players do for HD")


def _rgb_for(frame: VideoFrame) -> str:
    """FFmpeg's name of RGB, with opacity where a frame can be transparent (a palette holds its transparency itself)."""
    form = frame.format
    return "rgba" if form.name == "pal8" or any(part.is_alpha for part in form.components) else "rgb24"


class Converter:
    """From the frames of a clip to pictures [height, width, 3] uint8, or [height, width, 4] with their opacity."""

    def __init__(self, colours: Colours) -> None:
        self._colours = colours
        self._graph: Graph | None = None
        self._shape: tuple = ()

    def __call__(self, frame: VideoFrame) -> NDArray:
        if self._colours.hdr:
            return self._sdr(frame).to_ndarray()
        # PyAV before 17 heeds range and matrix only where they are given, and the matrix only where that of the result,
        # which RGB does not have, is another.
        matrix = self._colours.untagged if frame.colorspace == _UNSPECIFIED else frame.colorspace
        told = {"src_colorspace": matrix, "dst_colorspace": _BT601 if matrix == _BT709 else _BT709}
        if frame.color_range:
            told["src_color_range"] = frame.color_range
        return frame.to_ndarray(format=_rgb_for(frame), interpolation=_EXACT, **told)

    def _sdr(self, frame: VideoFrame) -> VideoFrame:
        if shape_of(frame) != self._shape:
            self._graph, self._shape = _to_sdr(frame, self._colours.hdr), shape_of(frame)
        self._graph.push(frame)
        return self._graph.pull()


def _to_sdr(frame: VideoFrame, transfer: str) -> Graph:
    """From BT.2100 to BT.709 on a display of gamma 2.4, with the reference white of ITU-R BT.2408 as white."""
    options = f"in_transfer={transfer}:in_primaries=bt2020:out_transfer=bt709:out_primaries=bt709"
    if frame.colorspace == _UNSPECIFIED:
        options += ":in_color_matrix=bt2020"
    return graph_for(frame, ("scale", options), ("format", _rgb_for(frame)))
