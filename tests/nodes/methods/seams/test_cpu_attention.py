"""Attention on a CPU: PyTorch's in the place of the one that ComfyUI takes by itself, and of no other."""

from __future__ import annotations

import comfy.ldm.modules.attention as comfyui
import pytest
import torch
from comfy.cli_args import args
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.cpu_attention import faster_on_cpu
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings

CPU = torch.device("cpu")


def output(attention, options: dict) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, count, 32, generator=generator) for count in (40, 30, 30))
    return attention(q, k, v, 4, transformer_options=options)


def test_the_default_of_comfyui_gives_way_to_that_of_pytorch():
    found = output(comfyui.attention_sub_quad, faster_on_cpu({}, CPU))
    assert torch.equal(found, output(comfyui.attention_pytorch, {}))
    assert torch.allclose(found, output(comfyui.attention_sub_quad, {}), atol=1e-5)


def test_what_was_chosen_stays(monkeypatch):
    split = output(comfyui.attention_split, {})
    assert torch.equal(output(comfyui.attention_split, faster_on_cpu({}, CPU)), split)
    assert faster_on_cpu({"optimized_attention_override": print}, CPU) == {}
    monkeypatch.setattr(args, "use_quad_cross_attention", True)
    assert faster_on_cpu({}, CPU) == {}


def test_other_devices_are_left_alone():
    assert faster_on_cpu({}, torch.device("cuda")) == {}


@pytest.mark.parametrize("bases", [False, True])
def test_a_run_has_it_and_the_model_does_not(loaded, video, monkeypatch, bases):
    seen = []

    def faster(options, device):
        seen.append(device)
        return faster_on_cpu(options, device)

    for place in ("attention.installing", "inversion.sampling"):
        monkeypatch.setattr(f"comfyui_stem.nodes.methods.{place}.faster_on_cpu", faster)
    model = install(loaded.model, StemSelfAttention.from_settings(StemSettings())) if bases else loaded.model
    invert(model, loaded.prompt("a hill"), video[:2], 1, "next")
    assert seen
    assert "optimized_attention_override" not in model.model_options["transformer_options"]
