"""Video Metrics and Optical Flow, as a graph calls them."""

from __future__ import annotations

import json
import math

import comfy.clip_vision
import comfy.model_management
import comfy.utils
import numpy as np
import pytest
import torch
from comfyui_stem.nodes import video_flow
from comfyui_stem.nodes.compare_videos import CompareVideos
from comfyui_stem.nodes.metrics.optical_flow import raft_bytes
from comfyui_stem.nodes.video_flow import VideoFlow
from comfyui_stem.nodes.video_metrics import VideoMetrics

FRAMES, HEIGHT, WIDTH = 4, 40, 56


def texture(seed=1, frames=FRAMES):
    coarse = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(seed))
    frame = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)
    return torch.stack([frame.roll(n, 1) for n in range(frames)])


def measured(source, edited, **inputs):
    table, plot, text = VideoMetrics.execute(source, edited, **inputs).args
    return table, plot, json.loads(text)


def test_known_noise_has_the_psnr_of_its_size():
    source = texture()
    _, _, found = measured(source, source + 0.01)
    assert found["measures"]["psnr"]["value"] == pytest.approx(40, abs=1e-4)
    assert len(found["measures"]["psnr"]["frames"]) == FRAMES


def test_metrics_agree_with_a_second_implementation():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    source, edited = texture().double(), texture(2).double()
    found = measured(source, edited)[2]["measures"]
    for n in range(FRAMES):
        a, b = (video[n].numpy() for video in (source, edited))
        assert found["psnr"]["frames"][n] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-6)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        _, theirs = structural_similarity(a, b, channel_axis=-1, data_range=1, **options)
        # where the whole window lies inside
        assert found["ssim"]["frames"][n] == pytest.approx(float(np.mean(theirs[5:-5, 5:-5])), abs=1e-4)


def test_the_source_itself_is_the_steadiest_video():
    source = texture()
    still, own = measured(source, source), measured(source, texture(3))
    for found in (still[2], own[2]):
        assert found["models"]["flow"] == "DIS (OpenCV)"
    assert still[2]["measures"]["warp_error"] == still[2]["measures"]["source_warp_error"]
    shuffled = measured(source, source[[2, 0, 3, 1]])[2]["measures"]
    assert shuffled["warp_error"]["value"] > 2 * shuffled["source_warp_error"]["value"]


def test_a_flow_that_is_given_is_used_and_named():
    source = texture()
    (flow,) = VideoFlow.execute(source).args
    given, found = measured(source, texture(2), flow=flow)[2], measured(source, texture(2))[2]
    assert given == found


def test_every_measure_is_in_the_table_and_those_of_frames_in_the_plot():
    table, plot, found = measured(texture(), texture(2))
    assert len(table.splitlines()) == len(found["measures"]) + 1
    assert "warp error of the edit, x1000" in table and "DIS (OpenCV)" in table
    assert plot.ndim == 4 and plot.shape[0] == 1 and plot.shape[-1] == 3
    assert 0 <= float(plot.min()) < 0.5 < float(plot.max()) <= 1


def test_one_frame_is_measured_without_motion():
    found = measured(texture(frames=1), texture(2, frames=1))[2]["measures"]
    assert set(found) == {"psnr", "ssim"}


def test_an_alpha_channel_is_left_out():
    source = texture()
    with_alpha = torch.cat([source, torch.rand(FRAMES, HEIGHT, WIDTH, 1)], dim=-1)
    assert measured(with_alpha, source)[2]["measures"]["psnr"]["value"] == 100


def test_videos_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="the source has 4 frames of 56x40 pixels, the edit has 3 frames of 56x40"):
        VideoMetrics.execute(texture(), texture()[:3])


def test_a_flow_of_another_video_is_refused():
    (flow,) = VideoFlow.execute(texture()[:3]).args
    with pytest.raises(ValueError, match="the flow covers 3 frames of 56x40 pixels, but the source has 4"):
        VideoMetrics.execute(texture(), texture(), flow=flow)


def test_raft_is_offered_by_the_files_that_there_are_and_asks_comfyui_for_its_memory(tmp_path, monkeypatch):
    from safetensors.torch import save_file
    from torchvision.models.optical_flow import raft_small

    monkeypatch.setattr(video_flow, "weights_folder", lambda: tmp_path)
    save_file(raft_small(weights=None).state_dict(), tmp_path / "mine.safetensors")
    options = next(i for i in VideoFlow.define_schema().inputs if i.id == "method").options
    assert options == ["DIS", "mine.safetensors"]
    asked = []
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda *wanted: asked.append(wanted))
    with torch.inference_mode():
        (flow,) = VideoFlow.execute(texture(), "mine.safetensors").args
    # room for its weights, features and correlations, once
    needed = raft_bytes(raft_small(weights=None).state_dict(), HEIGHT, WIDTH)
    assert asked == [(needed, comfy.model_management.get_torch_device())]
    assert flow.name == "RAFT (torchvision, mine.safetensors)" and flow.shape == (FRAMES, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"no file \.\./other\.safetensors in models/optical_flow"):
        VideoFlow.execute(texture(), "../other.safetensors")


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """The host's CLIP vision model at a tiny width, with random weights."""
    config = {
        "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "quick_gelu", "hidden_size": 64, "image_size": 32,
        "intermediate_size": 96, "layer_norm_eps": 1e-05, "model_type": "clip_vision_model", "num_attention_heads": 4,
        "num_channels": 3, "num_hidden_layers": 2, "patch_size": 8, "projection_dim": 64,
    }  # fmt: skip
    file = tmp_path_factory.mktemp("vision") / "tiny.json"
    file.write_text(json.dumps(config))
    model = comfy.clip_vision.ClipVisionModel(str(file))
    generator = torch.Generator().manual_seed(3)
    for parameter in model.model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def clip(loaded):
    """The tiny text model with a projection that is not the identity."""
    weight = loaded.clip.cond_stage_model.clip_l.transformer.text_projection.weight
    before = weight.clone()
    weight.data.copy_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)))
    yield loaded.clip
    weight.data.copy_(before)


def test_clip_measures_come_with_the_models_that_are_connected(vision, clip):
    source, edited = texture(), texture(2)
    without = measured(source, edited, clip_vision=vision)[2]
    assert "temporal_consistency" in without["measures"] and "clip_score" not in without["measures"]
    target = measured(source, edited, clip_vision=vision, clip=clip, target_prompt="a car")[2]["measures"]
    assert len(target["clip_score"]["frames"]) == FRAMES and "frame_accuracy" not in target
    both = measured(source, edited, clip_vision=vision, clip=clip, target_prompt="a car", source_prompt="a tree")[2]
    assert both["measures"]["frame_accuracy"]["value"] in (0, 0.25, 0.5, 0.75, 1)
    assert "64 numbers" in both["models"]["CLIP vision"]
    note = measured(source, edited, clip_vision=vision, target_prompt="a car")[2]["models"]["note"]
    assert "no CLIP text model" in note


def test_the_clip_score_is_the_cosine_of_the_hosts_own_embeddings(vision, clip):
    edited = texture(2)
    found = measured(texture(), edited, clip_vision=vision, clip=clip, target_prompt="a car")[2]["measures"]
    frames = vision.encode_image(edited)["image_embeds"].double()
    _, text = clip.encode_from_tokens(clip.tokenize("a car"), return_pooled=True)
    expected = torch.nn.functional.cosine_similarity(frames, text.double(), dim=-1)
    assert found["clip_score"]["frames"] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_text_model_without_projection_is_refused(vision, loaded):
    weight = loaded.clip.cond_stage_model.clip_l.transformer.text_projection.weight
    before = weight.clone()
    weight.data.copy_(torch.eye(*weight.shape))
    try:
        with pytest.raises(ValueError, match="this CLIP has no text projection.*Load clip_l"):
            VideoMetrics.execute(texture(), texture(), clip_vision=vision, clip=loaded.clip, target_prompt="a car")
    finally:
        weight.data.copy_(before)


def test_models_of_other_widths_are_refused(vision, clip, monkeypatch):
    original = vision.encode_image
    monkeypatch.setattr(vision, "encode_image", lambda image: {"image_embeds": original(image)["image_embeds"][:, :48]})
    with pytest.raises(ValueError, match="have size 64, those of the vision model 48"):
        VideoMetrics.execute(texture(), texture(), clip_vision=vision, clip=clip, target_prompt="a car")


def test_what_cannot_be_measured_is_null_in_the_json():
    # black frames after a picture: nothing of the flow can be trusted
    source = torch.cat([texture(frames=1), torch.zeros(1, HEIGHT, WIDTH, 3)])
    _, _, found = measured(source, source)
    value = found["measures"]["warp_error"]["value"]
    assert value is None or math.isfinite(value)


def test_grey_frames_are_measured_as_grey_in_colour():
    source, edited = texture()[..., :1], texture(2)[..., :1]
    in_colour = measured(source.expand(-1, -1, -1, 3), edited.expand(-1, -1, -1, 3))[2]
    assert measured(source, edited)[2] == measured(source.expand(-1, -1, -1, 3), edited)[2] == in_colour
    assert torch.equal(
        VideoFlow.execute(source).args[0].backward, VideoFlow.execute(texture()[..., [0, 0, 0]]).args[0].backward
    )


def test_frames_that_are_not_there_are_refused_by_name():
    for call, name in (
        (lambda: measured(texture()[:0], texture()), "Video Metrics: the source is empty"),
        (lambda: measured(texture(), texture()[:0]), "Video Metrics: the edit is empty"),
        (lambda: VideoFlow.execute(texture()[:0]), "Optical Flow: the video is empty"),
    ):
        with pytest.raises(ValueError, match=name):
            call()


NODES = {
    "metrics": lambda: VideoMetrics.execute(texture(), texture(2)),
    "metrics with a flow": lambda: VideoMetrics.execute(texture(), texture(2), VideoFlow.execute(texture()).args[0]),
    "one frame": lambda: VideoMetrics.execute(texture()[:1], texture(2)[:1]),
    "flow": lambda: VideoFlow.execute(texture()),
    "side by side": lambda: CompareVideos.execute(texture(), texture(2)[:, :20]),
    "stacked": lambda: CompareVideos.execute(texture(), texture(2), texture(3), layout="stacked"),
    "wipe": lambda: CompareVideos.execute(texture(), texture(2)[:2, :20], layout="wipe"),
}


@pytest.mark.parametrize("name", NODES)
def test_every_frame_that_is_looked_at_is_shown_as_progress_and_can_be_the_last(monkeypatch, name):
    shown = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *more, **others: shown.append((value, total))
    )
    NODES[name]()
    last = len(shown) - 1
    assert shown[-1][0] == shown[-1][1]
    for stop in {0, last // 2, last}:
        shown.clear()

        def interrupt(value, total, *more, stop=stop, **others):
            shown.append(value)
            if len(shown) > stop:
                raise InterruptedError

        # ComfyUI's own hook raises so where a run is interrupted.
        monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", interrupt)
        with pytest.raises(InterruptedError):
            NODES[name]()
        assert len(shown) == stop + 1
