"""Empty bases are left out or masked: by either the attention is that over the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.seen_bases import logit_bias, seen_bases
from comfyui_stem.nodes.methods.stem.settings import PRESETS, StemSettings
from comfyui_stem.stem_kernels.em import Bases
from comfyui_stem.tools.host.pretend_device import PretendTensor, moved, pretended
from comfyui_stem.tools.measured.errors import relative_error as relative

MASS = torch.tensor([3.0, 0.0, 5.0])
KEPT = replace(StemSettings(), em=replace(StemSettings().em, empty_bases="kept"))
WEIGHTED = StemSettings(mass_weighted=True)
LOWEST = torch.finfo(torch.float32).min


def bases(mass: torch.Tensor) -> Bases:
    return Bases(torch.zeros(3, 2), mass, torch.zeros(3, 2))


def test_on_a_cpu_empty_bases_are_left_out():
    kept, bias = seen_bases(bases(MASS), StemSettings(), torch.float32)
    assert kept.tolist() == [True, False, True]
    assert bias is None
    _, bias = seen_bases(bases(MASS), WEIGHTED, torch.float32)
    assert torch.allclose(bias, torch.tensor([[[[3.0, 5.0]]]]).log())


def test_where_the_settings_keep_them_all_are_seen():
    assert seen_bases(bases(MASS), KEPT, torch.float32) == (slice(None), None)
    assert logit_bias(bases(MASS), KEPT, torch.float32) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_bias_masks_what_is_empty_and_nothing_where_nothing_is(dtype):
    assert logit_bias(bases(MASS), StemSettings(), dtype).tolist() == [0, torch.finfo(dtype).min, 0]
    assert logit_bias(bases(MASS + 1), StemSettings(), dtype) is None
    assert torch.allclose(logit_bias(bases(MASS), WEIGHTED, torch.float32)[::2], MASS[::2].log())


def test_on_another_device_all_are_kept_and_the_host_does_not_wait():
    with pretended() as device:
        kept, bias = seen_bases(bases(PretendTensor(MASS)), StemSettings(), torch.float32)
    assert kept == slice(None)
    assert not device.waits
    assert bias.on_cpu.flatten().tolist() == [0, LOWEST, 0]


@pytest.mark.parametrize("preset", ["paper", "tokenflow"])
def test_an_inversion_that_masks_them_is_that_which_leaves_them_out(loaded, video, preset):
    method = StemSelfAttention.from_settings(PRESETS[preset])
    prompt = loaded.prompt("a hill")
    expected = invert(install(loaded.model, method), prompt, video, 2, "next").trajectory
    with pretended() as device:
        found = invert(install(moved(loaded).model, method), prompt, video, 2, "next").trajectory
    assert device.operations["masked_fill"] >= 32
    assert relative(found[-1], expected[-1]) < 1e-5
