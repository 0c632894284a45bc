from __future__ import annotations

import copy

import comfy.model_management
import pytest
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install, installed_method, remove
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import feature_block, self_attention_layers
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.stem_kernels.em import EMSettings


def attention_patches(model):
    options = model.model_options["transformer_options"]
    return options.get("patches", {}).get("attn1_patch", []), options.get("patches_replace", {}).get("attn1", {})


def test_the_sixteen_layers_are_found_in_order_of_execution(loaded):
    layers = self_attention_layers(loaded.model.model.diffusion_model)
    assert [(layer.block, layer.number) for layer in layers] == (
        [("input", n) for n in (1, 2, 4, 5, 7, 8)] + [("middle", 0)] + [("output", n) for n in range(3, 12)]
    )
    assert [layer.level for layer in layers] == [0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert [layer.index for layer in layers if layer.injected] == list(range(8, 16))
    assert feature_block(layers) == 4


def test_another_topology_is_refused_by_what_it_has():
    unet = torch.nn.Module()
    unet.input_blocks = unet.output_blocks = torch.nn.ModuleList([torch.nn.Identity()])
    unet.middle_block = torch.nn.Identity()
    for other in (unet, torch.nn.Linear(1, 1)):
        with pytest.raises(ValueError, match=r"\((Module|Linear)\) has self-attention in 0 known blocks"):
            self_attention_layers(other)


def test_a_method_is_installed_on_a_clone_and_the_original_stays_as_it_was(loaded):
    before = copy.deepcopy(loaded.model.model_options)
    method = FrameContextAttention(None)
    patched = install(loaded.model, method)
    assert installed_method(patched) is method
    assert installed_method(loaded.model) is None
    assert loaded.model.model_options == before and not loaded.model.wrappers.get("outer_sample")
    patches, replaced = attention_patches(patched)
    assert len(patches) == 1 and len(replaced) == 16


def test_a_second_method_takes_the_place_of_the_first(loaded):
    stem = StemSelfAttention.from_settings(StemSettings())
    patched = install(install(loaded.model, FrameContextAttention(None)), stem)
    assert installed_method(patched) is stem
    patches, replaced = attention_patches(patched)
    assert len(patches) == 1 and len(replaced) == 16
    assert len(patched.get_all_wrappers("outer_sample")) == 1


def test_removing_a_method_leaves_other_patches_alone(loaded):
    def other(n, extra_options):
        return n

    model = loaded.model.clone()
    model.set_model_attn1_output_patch(other)
    cleaned = remove(install(model, FrameContextAttention(None)))
    assert attention_patches(cleaned) == ([], {})
    assert cleaned.model_options["transformer_options"]["patches"]["attn1_output_patch"] == [other]


def test_a_clone_shares_the_method_and_copies_no_state(loaded):
    patched = install(loaded.model, StemSelfAttention.from_settings(StemSettings()))
    assert installed_method(patched.clone().clone()) is installed_method(patched)


@pytest.mark.parametrize("kind", [SpatialTransformer, torch.nn.Module])
def test_a_foreign_replacement_of_whole_transformer_blocks_is_refused_with_its_name(loaded, kind):
    def other_transformer(layer, x, *args):
        return x

    model = loaded.model.clone()
    model.set_model_forward_timestep_embed_patch((kind, other_transformer))
    with pytest.raises(ValueError, match="other_transformer.* replaces the transformer blocks of the network"):
        install(model, FrameContextAttention(None))
    beside = loaded.model.clone()
    beside.set_model_forward_timestep_embed_patch((torch.nn.Upsample, other_transformer))
    assert installed_method(install(beside, FrameContextAttention(None))) is not None


@pytest.mark.parametrize("index", [None, 0])
def test_a_foreign_replacement_of_our_layers_is_refused_with_its_name(loaded, index):
    def perturbed_attention(q, k, v, extra_options):
        return v

    model = loaded.model.clone()
    model.set_model_attn1_replace(perturbed_attention, "middle", 0, index)
    with pytest.raises(ValueError, match=r"block middle 0 is already replaced by another node's patch .*perturbed_att"):
        install(model, FrameContextAttention(None))


def test_a_patch_that_changes_the_tokens_is_refused_with_its_name(loaded):
    def merge_tokens(n, context, value, extra_options):
        return n, context, value

    model = loaded.model.clone()
    model.set_model_attn1_patch(merge_tokens)
    with pytest.raises(ValueError, match=r"merge_tokens\) changes the tokens that self-attention reads"):
        install(model, FrameContextAttention(None))


def test_conditionings_on_several_devices_at_a_time_are_refused(loaded, video):
    model = install(loaded.model, FrameContextAttention(None))
    model.set_additional_models("multigpu", [loaded.model.clone()])
    with pytest.raises(ValueError, match="on several devices at the same time .*Disconnect that node"):
        invert(model, loaded.prompt("a hill"), video, 1, "next")


@pytest.mark.parametrize("frames_per_batch", [None, 2])
def test_an_interrupted_run_ends_before_the_next_layer(loaded, video, frames_per_batch):
    seen = []

    def interrupt(output, extra_options):
        seen.append(extra_options["block"])
        if len(seen) == 3:
            comfy.model_management.interrupt_current_processing()
        return output

    method = StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=4)), frames_per_batch)
    model = install(loaded.model, method)
    model.set_model_attn1_output_patch(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        invert(model, loaded.prompt("a hill"), video, 2, "next")
    assert len(seen) == 3
