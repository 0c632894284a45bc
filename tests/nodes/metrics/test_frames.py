"""Whatever an IMAGE holds becomes RGB, or a sentence."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.metrics.frames import rgb


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_grey_is_repeated_and_alpha_left_out(channels, dtype):
    images = torch.rand(2, 3, 5, channels).to(dtype)
    frames = rgb(images, "Node", "the video")
    assert frames.shape == (2, 3, 5, 3) and frames.dtype == torch.promote_types(dtype, torch.float32)
    expected = images[..., :3] if channels >= 3 else torch.cat([images[..., :1]] * 3, dim=-1)
    assert torch.equal(frames, expected.to(frames.dtype))


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (torch.zeros(0, 8, 8, 3), r"Node: the video is empty \(\[0, 8, 8, 3\]\). Check the node that made it"),
        (torch.zeros(2, 0, 8, 3), "is empty"),
        (torch.zeros(8, 8, 3), r"is \[8, 8, 3\]; a batch of pictures .* is needed"),
        (torch.zeros(1, 8, 8, 5), r"is \[1, 8, 8, 5\]"),
        ([torch.zeros(1, 8, 8, 3)], "is list"),
        (None, "is NoneType"),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused_by_name(images, why):
    with pytest.raises(ValueError, match=why):
        rgb(images, "Node", "the video")
