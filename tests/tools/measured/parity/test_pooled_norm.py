"""The normalisation over frames that FateZero's recorded cases need."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.tools.measured.parity.pooled_norm import pooled_group_norm
from torch import nn
from torch.nn.functional import group_norm

FRAMES, CLIPS, CHANNELS = 3, 2, 8


class Unet(nn.Module):
    """Group normalisations under the names of a UNet, and others."""

    def __init__(self):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(4, CHANNELS))
        self.norm = nn.GroupNorm(4, CHANNELS)
        self.to_out = nn.Sequential(nn.Linear(5, 5))


def test_residual_blocks_normalise_over_all_frames_of_a_clip_and_other_layers_as_before():
    unet = Unet()
    nn.init.normal_(unet.in_layers[0].weight)
    x = torch.randn(CLIPS * FRAMES, CHANNELS, 5, 5) * torch.arange(1, 7).view(-1, 1, 1, 1)
    plain = unet.in_layers(x), unet.norm(x)
    with pooled_group_norm(unet, FRAMES):
        pooled = unet.in_layers(x)
        assert torch.equal(unet.norm(x), plain[1]) and unet.to_out(x).shape == x.shape
    norm = unet.in_layers[0]
    for clip in range(CLIPS):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        five = x[rows].movedim(0, 1)[None]  # [1, c, n, h, w]
        expected = group_norm(five, 4, norm.weight, norm.bias, norm.eps)[0].movedim(1, 0)
        torch.testing.assert_close(pooled[rows], expected)
    assert not torch.allclose(pooled, plain[0])
    assert torch.equal(unet.in_layers(x), plain[0])


def test_it_ends_with_an_exception_too():
    unet = Unet()
    with pytest.raises(KeyError), pooled_group_norm(unet, FRAMES):
        raise KeyError
    assert not unet.in_layers[0]._forward_hooks
