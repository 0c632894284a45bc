"""Turning stored pictures upright."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Matrix = tuple[int, int, int, int]
"""(a, b, c, d): a stored point (x, y) is shown at (a·x + c·y, b·x + d·y)."""
UPRIGHT: Matrix = (1, 0, 0, 1)


def display_matrix(frame: VideoFrame) -> Matrix:
    """How the metadata of a decoded frame says that its clip is to be turned and mirrored.

    Not for every frame: PyAV keeps one whose side data was looked at until the next garbage collection.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    return a, b, c, d


def is_turned(matrix: Matrix) -> bool:
    """Whether pictures are stored lying on their side, so that the stored width is the shown height."""
    return abs(matrix[1]) > abs(matrix[0])


def turn_upright(picture: NDArray, matrix: Matrix) -> NDArray:
    """The shown picture [height, width, 3] of a stored one; a view."""
    a, b, c, d = matrix
    if is_turned(matrix):
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    picture = picture[:, ::-1] if a < 0 else picture
    return picture[::-1] if d < 0 else picture
