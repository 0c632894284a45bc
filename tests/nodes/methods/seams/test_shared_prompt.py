"""A prompt is projected once for all frames, with the numbers that it would have had for each."""

from __future__ import annotations

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.inversion import sampling
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import self_attention_layers
from comfyui_stem.nodes.methods.seams.shared_prompt import of_rows
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.tools.measured.errors import relative_error as relative


def counted(unet: torch.nn.Module, found: list[int]) -> list:
    """Hooks that note how many prompts the cross-attention of a network projects."""
    projections = [module.to_k for name, module in unet.named_modules() if name.endswith("attn2")]
    return [layer.register_forward_pre_hook(lambda _, inputs: found.append(len(inputs[0]))) for layer in projections]


@pytest.fixture
def prompts(loaded):
    """How many prompts each cross-attention has projected."""
    found: list[int] = []
    hooks = counted(loaded.model.model.diffusion_model, found)
    yield found
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("batches", [None, 0, 2])
def test_one_prompt_is_projected_once_and_gives_what_it_gives_each_frame(loaded, video, prompts, monkeypatch, batches):
    stem = StemSelfAttention.from_settings(PRESETS["paper"].with_bases(8), batches)
    model = loaded.model if batches is None else install(loaded.model, stem)
    shared = invert(model, loaded.prompt("a hill"), video, 1, "next").trajectory
    assert set(prompts) == {1} and len(prompts) % len(self_attention_layers(model.model.diffusion_model)) == 0
    monkeypatch.setattr(sampling, "share_prompt", lambda options: None)
    assert relative(shared, invert(model, loaded.prompt("a hill"), video, 1, "next").trajectory) < 1e-6
    assert max(prompts) > 1


def with_patch(model):
    model.set_model_attn2_patch(lambda q, k, v, options: (q, k, v))


def with_replacement(model):
    model.set_model_attn2_replace(lambda q, k, v, options: torch.zeros_like(q), "middle", 0)


def with_wrapper(model):
    model.add_wrapper_with_key(
        WrappersMP.DIFFUSION_MODEL, "another pack", lambda executor, *args, **more: executor(*args, **more)
    )


@pytest.mark.parametrize("foreign", [with_patch, with_replacement, with_wrapper])
def test_what_another_pack_has_put_there_sees_a_prompt_for_every_frame(loaded, video, prompts, foreign):
    model = loaded.model.clone()
    foreign(model)
    invert(model, loaded.prompt("a hill"), video, 1, "next")
    assert set(prompts) == {len(video)}


def test_an_attention_that_a_node_has_chosen_is_asked_with_a_prompt_for_every_frame(loaded, video, prompts):
    asked = []

    def chosen(attention, q, k, v, *arguments, **named):
        asked.append((q.shape[0], k.shape[0], v.shape[0]))
        return attention(q, k, v, *arguments, **named)

    model = loaded.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = chosen
    invert(model, loaded.prompt("a hill"), video, 1, "next")
    assert set(prompts) == {1} and set(asked) == {(len(video),) * 3}


def test_rows_are_those_of_their_prompt():
    prompts = torch.arange(2.0)[:, None, None].expand(2, 3, 4)
    assert of_rows(prompts, (1, 3))[:, 0, 0].tolist() == [0, 1, 1, 1]
    assert of_rows(prompts[:1], 5).shape == (5, 3, 4) and of_rows(prompts, 2) is prompts
