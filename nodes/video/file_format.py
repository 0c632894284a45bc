"""Recognising a video file by its first bytes.

FFmpeg is told which format to read, never left to guess: among the formats that it guesses are playlists (concat, HLS,
DASH), which open the files they name, wherever those lie and whatever the playlist itself is called.
"""

from __future__ import annotations

HEAD_BYTES = 1024
"""How much of a file `recognise` needs."""

KNOWN = "MP4, MOV, MKV, WebM, AVI, MPEG-TS, MPEG, WMV, FLV, Ogg, MXF, NUT, IVF, GIF or APNG"

_BEGINNINGS = {
    b"\x1aE\xdf\xa3": "matroska",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpegvideo",
    b"0&\xb2u\x8ef\xcf\x11": "asf",
    b"FLV\x01": "flv",
    b"OggS": "ogg",
    b"\x06\x0e+4": "mxf",
    b"nut/multimedia container\x00": "nut",
    b"DKIF": "ivf",
    b"GIF8": "gif",
}
_MOVIE_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
# Length of a transport stream packet and the offset of its sync byte: plain, with time codes, with error correction.
_TRANSPORT_PACKETS = ((188, 0), (192, 4), (204, 0))


def recognise(head: bytes) -> str | None:
    """FFmpeg's name for the format of a file that begins with `head`, or None if it is none of those known."""
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return name
    if head[4:8] in _MOVIE_BOXES:
        return "mov"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"\x89PNG") and b"acTL" in head:
        return "apng"
    for length, offset in _TRANSPORT_PACKETS:
        if head[offset : 4 * length : length] == b"GGGG":
            return "mpegts"
    return None
