"""FFmpeg's own filters on decoded frames: fields joined to whole pictures, and HDR brought to SDR."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from . import BrokenStreamError
from .frame_selection import ShownFrame


def graph_for(frame: VideoFrame, *filters: tuple[str, str]) -> Graph:
    """Filters, each with its options, one after another, for frames like this one.

    Raises av.error.FFmpegError where this FFmpeg does not know one of them.
    """
    graph = Graph()
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:"
        f"colorspace={frame.colorspace}:range={frame.color_range}",
    )
    graph.link_nodes(source, *(graph.add(*one) for one in filters), graph.add("buffersink")).configure()
    return graph


def shape_of(frame: VideoFrame) -> tuple[int, int, str]:
    """What a frame has to have in common with the one that a graph was made for: width, height and pixel format."""
    return frame.width, frame.height, frame.format.name


def deinterlaced(shown: Iterable[ShownFrame]) -> Iterator[ShownFrame]:
    """The same frames; those that hold two fields of different moments show the first one, completed by `bwdif`.

    Everything from the first such frame on goes through the filter, which passes whole pictures on as they are.
    """
    graph, shape, waiting = None, None, deque()
    try:
        for frame in shown:
            if graph is not None and shape_of(frame.picture) != shape:  # another recording, joined to this one
                yield from _rest(graph, waiting)
                graph = None
            if graph is None and frame.picture.interlaced_frame:
                graph = graph_for(frame.picture, ("bwdif", "mode=send_frame:deint=interlaced"))
                shape = shape_of(frame.picture)
            if graph is None:
                yield frame
                continue
            waiting.append(frame)
            graph.push(frame.picture)
            yield from _finished(graph, waiting)
    except BrokenStreamError:
        yield from _rest(graph, waiting)
        raise
    yield from _rest(graph, waiting)


def _rest(graph: Graph | None, waiting: deque[ShownFrame]) -> Iterator[ShownFrame]:
    """What the filter still holds, as it needs the field after a frame."""
    if graph is not None:
        graph.push(None)
        yield from _finished(graph, waiting)


def _finished(graph: Graph, waiting: deque[ShownFrame]) -> Iterator[ShownFrame]:
    while waiting:
        try:
            picture = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield replace(waiting.popleft(), picture=picture)
