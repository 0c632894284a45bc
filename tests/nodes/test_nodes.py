"""The nodes as a graph calls them: schema, results, and what they refuse."""

from __future__ import annotations

import asyncio
import importlib.util
import pathlib
import sys

import comfy.model_base
import comfy.model_sampling
import node_helpers
import pytest
import torch
from comfyui_stem.nodes.bases_preview import BasesPreview
from comfyui_stem.nodes.compare_videos import CompareVideos
from comfyui_stem.nodes.fatezero_edit import FateZeroEdit
from comfyui_stem.nodes.feature_pca import FeaturePCA
from comfyui_stem.nodes.frame_context import FrameContext
from comfyui_stem.nodes.inversion_sampler import InversionSampler
from comfyui_stem.nodes.load_inversion import LoadInversion
from comfyui_stem.nodes.methods.attention.installing import installed_method
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.nodes.reconstruct import Reconstruct
from comfyui_stem.nodes.save_inversion import SaveInversion
from comfyui_stem.nodes.stem_bases import StemBases
from comfyui_stem.nodes.tokenflow_edit import TokenFlowEdit
from comfyui_stem.nodes.video_flow import VideoFlow
from comfyui_stem.nodes.video_metrics import VideoMetrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = [
    BasesPreview,
    CompareVideos,
    FateZeroEdit,
    FeaturePCA,
    FrameContext,
    InversionSampler,
    LoadInversion,
    Reconstruct,
    SaveInversion,
    StemBases,
    TokenFlowEdit,
    VideoFlow,
    VideoMetrics,
]


def defaults(node):
    """Every widget of a node at its default."""
    return {i.id: i.default for i in node.define_schema().inputs if getattr(i, "default", None) is not None}


def run(node, **inputs):
    return node.execute(**(defaults(node) | inputs)).args


@pytest.fixture(scope="module")
def inverted(loaded, video):
    with torch.inference_mode():
        model = run(StemBases, model=loaded.model, num_bases=16)[0]
        return run(InversionSampler, model=model, positive=loaded.prompt("a hill"), latent={"samples": video}, steps=2)


def test_the_host_gets_all_nodes_from_the_packs_entry_point():
    spec = importlib.util.spec_from_file_location(
        "stem_pack_under_test", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    assert [node.define_schema().node_id for node in nodes] == [
        "STEMEditVideo",
        "STEMVideoLoad",
        "STEMBases",
        "STEMFrameContext",
        "STEMInversionSampler",
        "STEMSaveInversion",
        "STEMLoadInversion",
        "STEMReconstruct",
        "STEMTokenFlowEdit",
        "STEMFateZeroEdit",
        "STEMVideoFlow",
        "STEMVideoMetrics",
        "STEMCompareVideos",
        "STEMBasesPreview",
        "STEMFeaturePCA",
        "STEMWordAttention",
    ]
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")


@pytest.mark.parametrize("node", NODES)
def test_every_input_and_output_explains_itself(node):
    schema = node.define_schema()
    schema.validate()
    assert schema.category == "STEM Inversion" and schema.description
    for field in schema.inputs + schema.outputs:
        assert field.tooltip and len(field.tooltip) > 15 and field.tooltip.endswith("."), field.id


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_is_kept_by_name_until_a_field_leaves_it(loaded, preset):
    def settings(**inputs):
        return installed_method(run(StemBases, model=loaded.model, preset=preset, **inputs)[0]).settings

    assert settings().preset == preset
    assert settings(num_bases=8, seed=3).preset == preset
    assert settings(num_bases=8, seed=3).em.num_bases == 8
    # what changes speed and memory alone is no other preset
    assert settings(frames_per_batch=2, kernels="eager").preset == preset
    assert settings(iterations=7).preset == "custom"
    assert settings(mass_weighting=True).preset == "custom"
    assert settings(warm_start=1).preset == settings(explained_energy=0.9).preset == "custom"


def test_fields_of_stem_bases_reach_the_settings(loaded):
    inputs = {
        "temperature": 0.2,
        "iterations": 4,
        "em_space": "keys_per_head",
        "normalisation": "off",
        "initialisation": "gaussian",
        "scope": "anchor_frames",
        "scope_frames": 3,
        "mass_weighting": True,
        "frames_per_batch": 6,
        "explained_energy": 0.8,
        "warm_start": 2,
        "kernels": "eager",
        "seed": 11,
    }
    method = installed_method(run(StemBases, model=loaded.model, **inputs)[0])
    settings, em = method.settings, method.settings.em
    assert (em.temperature, em.iterations, em.normalize_bases, em.backend) == (0.2, 4, False, "eager")
    assert (method.frames_per_batch, settings.explained_energy, settings.warm_start) == (6, 0.8, 2)
    assert (settings.space, settings.initialisation, settings.scope) == ("keys_per_head", "gaussian", "anchor_frames")
    assert (settings.scope_frames, settings.mass_weighted, settings.seed) == (3, True, 11)


@pytest.mark.parametrize("frames", [i for i in FrameContext.define_schema().inputs if i.id == "frames"][0].options)
def test_every_frame_context_inverts(loaded, video, frames):
    model = run(FrameContext, model=loaded.model, frames=frames)[0]
    _, noisy = run(InversionSampler, model=model, positive=loaded.prompt(""), latent={"samples": video}, steps=1)
    assert torch.isfinite(noisy["samples"]).all()


def test_own_frame_context_is_plain_ddim(loaded, video):
    def noisy(model):
        return run(InversionSampler, model=model, positive=loaded.prompt(""), latent={"samples": video}, steps=1)[1]

    own = run(FrameContext, model=loaded.model, frames="own frame")[0]
    coarse = run(FrameContext, model=loaded.model, frames="all frames", finest_level=3)[0]
    everything = run(FrameContext, model=loaded.model, frames="all frames")[0]
    plain = noisy(loaded.model)["samples"]
    assert torch.allclose(noisy(own)["samples"], plain, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(noisy(everything)["samples"], noisy(coarse)["samples"], rtol=1e-4, atol=1e-4)


def test_from_inversion_to_reconstruction_and_edit(loaded, video, inverted):
    inversion, noisy = inverted
    assert inversion.frames == 5 and inversion.size == (8, 12) and noisy["samples"].shape == video.shape
    back = run(Reconstruct, inversion=inversion)[0]["samples"]
    edited = run(
        TokenFlowEdit,
        model=loaded.model,
        inversion=inversion,
        positive=loaded.prompt("a castle"),
        negative=loaded.prompt(""),
    )[0]["samples"]
    assert back.shape == edited.shape == video.shape
    assert (back - video).norm() < (edited - video).norm()


def test_reconstruction_with_another_model_of_the_checkpoint(loaded, inverted):
    results = [run(Reconstruct, inversion=inverted[0], model=model)[0]["samples"] for model in (None, loaded.model)]
    assert not torch.equal(*results)


def edit(loaded, inversion, **inputs):
    prompts = {"positive": loaded.prompt("a castle"), "negative": loaded.prompt("")}
    return run(TokenFlowEdit, **({"model": loaded.model, "inversion": inversion} | prompts | inputs))


# What is refused, and how.


@pytest.mark.parametrize("node", ["bases", "context", "sampler", "reconstruct", "edit"])
def test_a_flow_matching_model_is_refused(loaded, video, inverted, node):
    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    model = loaded.model.clone()
    model.add_object_patch("model_sampling", Flow())
    calls = {
        "bases": lambda: run(StemBases, model=model),
        "context": lambda: run(FrameContext, model=model),
        "sampler": lambda: run(InversionSampler, model=model, positive=loaded.prompt(""), latent={"samples": video}),
        "reconstruct": lambda: run(Reconstruct, inversion=inverted[0], model=model),
        "edit": lambda: edit(loaded, inverted[0], model=model),
    }
    with pytest.raises(ValueError, match=r"\) is a flow-matching model, but DDIM .* Load a checkpoint"):
        calls[node]()


def sample(loaded, **inputs):
    return run(InversionSampler, **({"model": loaded.model, "positive": loaded.prompt(""), "steps": 1} | inputs))


def test_the_noise_mask_of_the_inverted_latent_goes_with_the_inversion_and_the_noise(loaded, video):
    mask = torch.zeros(1, 1, 64, 96)
    inversion, noise = sample(loaded, latent={"samples": video, "noise_mask": mask})
    assert torch.equal(inversion.mask, mask[0]) and noise["noise_mask"] is mask
    (edited,) = edit(loaded, inversion)
    torch.testing.assert_close(edited["samples"], video, rtol=1e-4, atol=1e-4)


def test_a_noise_mask_of_another_number_of_frames_is_refused_before_anything_is_computed(loaded, video):
    with pytest.raises(ValueError, match="STEM Inversion Sampler: there are 2 masks for 5 frames"):
        sample(loaded, latent={"samples": video, "noise_mask": torch.zeros(2, 1, 64, 96)})


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (torch.zeros(2, 16, 8, 8), r"shaped \[2, 16, 8, 8\]"),
        (torch.zeros(1, 4, 3, 8, 8), "shaped .*3, 8, 8"),
        ([torch.zeros(1, 4, 8, 8)], r"of another kind \(list\)"),
    ],
)
def test_a_latent_of_another_kind_is_refused_with_its_shape(loaded, samples, found):
    with pytest.raises(ValueError, match=rf"the LATENT is {found}.*Encode the frames with the VAE Encode"):
        sample(loaded, latent={"samples": samples})


def test_a_latent_without_frames_is_refused(loaded):
    with pytest.raises(ValueError, match="contains no frame. Select at least one frame"):
        sample(loaded, latent={"samples": torch.zeros(0, 4, 8, 8)})


def test_not_a_number_in_the_latent_is_refused(loaded, video):
    broken = video.clone()
    broken[1, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="The LATENT to invert has NaN or infinity in frame 1"):
        sample(loaded, latent={"samples": broken})


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"area": (4, 4, 0, 0)}, "a region of the image"),
        ({"mask": torch.ones(1, 8, 12)}, "a mask"),
        ({"start_percent": 0.2}, "a range of the schedule"),
    ],
)
@pytest.mark.parametrize("role", ["source", "positive", "negative"])
def test_conditioning_of_a_part_is_refused(loaded, video, inverted, values, found, role):
    part = node_helpers.conditioning_set_values(loaded.prompt("a tree"), values)
    with pytest.raises(ValueError, match=f"the {role} conditioning uses {found}"):
        if role == "source":
            sample(loaded, latent={"samples": video}, positive=part)
        else:
            edit(loaded, inverted[0], **{role: part})


def test_combined_conditionings_are_refused(loaded, video):
    combined = loaded.prompt("a tree") + loaded.prompt("a house")
    with pytest.raises(ValueError, match="has 2 entries .* Connect a single CLIP Text Encode"):
        sample(loaded, latent={"samples": video}, positive=combined)


def test_conditioning_for_every_frame_is_refused(loaded, inverted):
    ((embedding, options),) = loaded.prompt("a tree")
    with pytest.raises(ValueError, match="has 5 prompts, one per frame"):
        edit(loaded, inverted[0], positive=[[embedding.repeat(5, 1, 1), options]])


def other_checkpoint(loaded):
    """A MODEL of the same family with other weights."""
    import comfy.model_patcher

    config = loaded.model.model.model_config
    base = config.get_model({}, device=torch.device("cpu"))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)


@pytest.mark.parametrize("node", ["reconstruct", "edit"])
def test_an_inversion_from_another_checkpoint_is_refused(loaded, inverted, node):
    model = other_checkpoint(loaded)
    with pytest.raises(ValueError, match=r"made with a checkpoint .* Connect the same checkpoint to both nodes"):
        if node == "edit":
            edit(loaded, inverted[0], model=model)
        else:
            run(Reconstruct, inversion=inverted[0], model=model)


def test_the_same_checkpoint_loaded_twice_is_accepted(loaded, inverted):
    model = other_checkpoint(loaded)
    model.model.diffusion_model.load_state_dict(loaded.model.model.diffusion_model.state_dict())
    assert torch.isfinite(run(Reconstruct, inversion=inverted[0], model=model)[0]["samples"]).all()


def test_other_noise_levels_are_refused(loaded, inverted):
    class Discrete(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    model = loaded.model.clone()
    model.add_object_patch("model_sampling", Discrete(model.model.model_config, zsnr=True))
    with pytest.raises(ValueError, match="noise levels of this MODEL differ .* the steps do not match"):
        edit(loaded, inverted[0], model=model)


@pytest.mark.parametrize("shape", [(4, 4, 8, 12), (5, 4, 8, 8)])
def test_a_start_of_another_size_or_length_is_refused(loaded, inverted, shape):
    with pytest.raises(ValueError, match=rf"has {shape[0]} frames of {shape[3]}×{shape[2]}, the INVERSION 5 of 12×8"):
        edit(loaded, inverted[0], start_latent={"samples": torch.zeros(shape)})


def test_the_noisy_latent_is_where_the_edit_starts_anyway(loaded, inverted):
    inversion, noisy = inverted
    started = edit(loaded, inversion, start_latent=noisy)[0]["samples"]
    assert torch.allclose(started, edit(loaded, inversion)[0]["samples"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("node", ["reconstruct", "edit"])
def test_steps_that_do_not_match_the_inversion_are_refused(loaded, inverted, node):
    with pytest.raises(ValueError, match=r"7 steps do not match the inversion"):
        if node == "edit":
            edit(loaded, inverted[0], steps=7)
        else:
            run(Reconstruct, inversion=inverted[0], steps=7)


def test_guidance_without_a_negative_prompt_is_refused(loaded, inverted):
    with pytest.raises(ValueError, match="no negative prompt is connected"):
        run(Reconstruct, inversion=inverted[0], cfg=7.5)


def test_stem_attention_in_the_edit_needs_settings_from_somewhere(loaded, video):
    inversion, _ = sample(loaded, latent={"samples": video})
    with pytest.raises(ValueError, match="neither the MODEL nor the INVERSION was made with STEM Bases"):
        edit(loaded, inversion, edit_attention="stem")
    with_bases = run(StemBases, model=loaded.model, num_bases=8)[0]
    assert torch.isfinite(edit(loaded, inversion, edit_attention="stem", model=with_bases)[0]["samples"]).all()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_foreign_attention_replacement_is_refused_whenever_it_was_added(loaded, video, inverted, when):
    def replacement(q, k, v, extra_options):
        return v

    model = loaded.model.clone()
    if when == "after":
        model = run(StemBases, model=model)[0]
    model.set_model_attn1_replace(replacement, "output", 5)
    with pytest.raises(ValueError, match=r"block output 5 is already replaced by another node's patch .*replacement"):
        if when == "after":
            sample(loaded, latent={"samples": video}, model=model)
        else:
            run(StemBases, model=model)
    with pytest.raises(ValueError, match="TokenFlow Edit: .* is already replaced"):
        edit(loaded, inverted[0], model=model)


def test_context_windows_are_refused(loaded, video):
    model = loaded.model.clone()
    model.model_options["context_handler"] = object()
    with pytest.raises(ValueError, match="carries context windows"):
        sample(loaded, latent={"samples": video}, model=model)


def test_an_unknown_frame_reference_is_refused(loaded):
    with pytest.raises(ValueError, match="'middel' is not a frame"):
        run(FrameContext, model=loaded.model, frames="custom", custom_frames="0, middel")
