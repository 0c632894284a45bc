"""Bases Preview, Feature PCA and Compare Videos, as a graph calls them."""

from __future__ import annotations

from dataclasses import replace

import comfy.utils
import pytest
import torch
from comfyui_stem.nodes import bases_preview
from comfyui_stem.nodes.bases_preview import BasesPreview
from comfyui_stem.nodes.compare_videos import CompareVideos
from comfyui_stem.nodes.feature_pca import FeaturePCA, neighbour_likeness
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.inversion.inspection import observed_fits, observed_output
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import self_attention_layers
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS, StemSettings
from comfyui_stem.nodes.metrics import pictures
from comfyui_stem.nodes.metrics.optical_flow import OpticalFlow
from comfyui_stem.stem_kernels.em import EMSettings, responsibilities

SMALL = StemSettings(em=EMSettings(num_bases=8))
FRAMES = 5


def inverted(loaded, video, stem=SMALL, frames_per_batch=None):
    method = StemSelfAttention.from_settings(stem, frames_per_batch)
    return invert(install(loaded.model, method), loaded.prompt("a hill"), video, 3, "next")


def layers_of(inversion):
    return self_attention_layers(inversion.model.model.diffusion_model)


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return inverted(loaded, video)


@pytest.mark.parametrize(("layer", "size"), [(0, (8, 12)), (2, (4, 6)), (6, (1, 2)), (15, (8, 12))])
def test_every_layer_shows_its_bases_on_every_frame(inversion, layer, size):
    picture, masses, text = BasesPreview.execute(inversion, layer, 0.5).args
    assert picture.shape == (FRAMES, 64, 96, 3) and 0 <= float(picture.min()) <= float(picture.max()) <= 1
    assert masses.ndim == 4 and masses.shape[-1] == 3
    # a token is a block of one colour
    block = min(64 // size[0], 96 // size[1])
    assert torch.equal(picture[:, :block, :block], picture[:, :1, :1].expand(-1, block, block, -1))
    assert f"layer {layer} " in text and f"{FRAMES * size[0] * size[1]} pixels" in text


def test_the_fit_that_is_shown_is_that_of_the_inversion(loaded, video, inversion):
    layer, timestep = layers_of(inversion)[13], inversion.timesteps[1]
    (fit,), size = observed_fits(inversion, layer, timestep, "Test")
    (again,), same = observed_fits(inverted(loaded, video, frames_per_batch=2), layer, timestep, "Test")
    assert size == same == (8, 12)
    torch.testing.assert_close(again.bases.centres, fit.bases.centres, rtol=1e-4, atol=1e-4)
    z = responsibilities(fit.features, fit.bases, SMALL.em)
    torch.testing.assert_close(z.sum(0), fit.bases.mass, rtol=1e-4, atol=1e-4)


def test_chunks_and_heads_have_bases_of_their_own(loaded, video):
    chunks = replace(PRESETS["reference_code"], em=replace(PRESETS["reference_code"].em, num_bases=8), scope_frames=2)
    inversion = inverted(loaded, video, chunks)
    picture, _, text = BasesPreview.execute(inversion, 13, 0.0, head=3).args
    assert picture.shape[0] == FRAMES
    assert text.count("chunk ") == 3
    assert not torch.equal(picture, BasesPreview.execute(inversion, 13, 0.0, head=0).args[0])
    with pytest.raises(ValueError, match="no head 4; the layer has 4, from 0 to 3"):
        BasesPreview.execute(inversion, 13, 0.0, head=4)


def test_anchor_frames_are_what_is_shown(loaded, video):
    anchors = replace(SMALL, scope="anchor_frames", scope_frames=2)
    assert BasesPreview.execute(inverted(loaded, video, anchors), 13, 0.0).args[0].shape[0] == 2


def test_an_inversion_without_bases_is_refused(loaded, video):
    for method in (None, FrameContextAttention(None)):
        model = loaded.model if method is None else install(loaded.model, method)
        inversion = invert(model, loaded.prompt(""), video, 1, "next")
        with pytest.raises(ValueError, match="Bases Preview: the INVERSION was made without STEM Bases"):
            BasesPreview.execute(inversion, 3, 0.0)


def test_a_warm_start_cannot_be_shown(loaded, video):
    inversion = inverted(loaded, video, replace(SMALL, warm_start=1))
    for node in (BasesPreview, FeaturePCA):
        with pytest.raises(ValueError, match="(Bases Preview|Feature PCA): .* made with warm_start"):
            node.execute(inversion, 3, 0.0)


def test_looking_changes_nothing(loaded, video, inversion):
    before = inversion.trajectory.clone()
    BasesPreview.execute(inversion, 5, 1.0)
    FeaturePCA.execute(inversion, 15, 1.0)
    assert torch.equal(inverted(loaded, video).trajectory, before)
    assert "attn1_output_patch" not in inversion.model.model_options["transformer_options"]["patches"]


@pytest.mark.parametrize("method", [None, StemSelfAttention.from_settings(SMALL, 2)])
def test_outputs_of_a_layer_are_those_of_all_frames_in_order(loaded, video, method):
    model = loaded.model if method is None else install(loaded.model, method)
    inversion = invert(model, loaded.prompt("a hill"), video, 2, "next")
    output = observed_output(inversion, layers_of(inversion)[15], inversion.timesteps[0], "Test")
    assert output.shape[:3] == (FRAMES, 8, 12)
    first = invert(model, loaded.prompt("a hill"), video[:1], 2, "next")
    if method is None:
        alone = observed_output(first, layers_of(inversion)[15], first.timesteps[0], "Test")
        torch.testing.assert_close(output[:1], alone, rtol=1e-4, atol=1e-4)


def test_feature_pca_shows_every_frame_and_every_pair(inversion):
    picture, likeness, text = FeaturePCA.execute(inversion, 15, 0.5).args
    assert picture.shape == (FRAMES, 64, 96, 3)
    assert likeness.shape == (FRAMES - 1, 64, 96, 3)
    assert text.count("frames ") == FRAMES - 1 and "mean similarity" in text


def test_a_still_video_is_like_itself(loaded, video):
    still = video[:1].repeat(3, 1, 1, 1)
    _, likeness, text = FeaturePCA.execute(inverted(loaded, still), 15, 0.5).args
    assert float(likeness.min()) > 0.99
    assert "consecutive frames: 1.0000" in text


def test_one_frame_has_no_neighbour(loaded, video):
    text = FeaturePCA.execute(inverted(loaded, video[:1]), 15, 0.5).args[2]
    assert "one frame has no neighbour" in text


def flow(dx, size=(64, 96), frames=FRAMES):
    backward = torch.tensor([float(dx), 0.0]).expand(frames - 1, *size, 2)
    return OpticalFlow(-backward, backward, torch.ones(frames - 1, *size, dtype=torch.bool), "Test")


def test_features_that_move_with_the_video_are_alike_along_its_flow():
    features = torch.randn(1, 8, 12, 5, generator=torch.Generator().manual_seed(1))
    moving = torch.cat([features.roll(n, 2) for n in range(FRAMES)])  # a token to the right with each frame
    along, _ = neighbour_likeness(moving, flow(-8))  # 8 pixels of the video are a token
    unmoved, _ = neighbour_likeness(moving, None)
    assert float(along[:, :, 1:].min()) > 0.999
    assert float(unmoved.mean()) < 0.5


def test_a_flow_of_other_frames_is_refused(inversion):
    with pytest.raises(ValueError, match="the flow covers 3 frames, but the INVERSION has 5"):
        FeaturePCA.execute(inversion, 15, 0.5, flow=flow(0, frames=3))


@pytest.mark.parametrize("node", [BasesPreview, FeaturePCA])
def test_drawing_a_layer_shows_progress_and_can_be_interrupted(inversion, monkeypatch, node):
    monkeypatch.setattr(bases_preview, "ROWS", 100)
    monkeypatch.setattr(pictures, "_ROWS", 100)
    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *more, **o: shown.append((value, total)))
    whole = node.execute(inversion, 15, 0.5).args[0]
    rows = FRAMES * 8 * 12 * (2 if node is FeaturePCA else 1)
    drawn = [value for value, total in shown if total == rows]
    assert drawn == sorted(drawn) and drawn[0] == 100 and drawn[-1] == rows  # newer hosts leave out some between
    monkeypatch.undo()
    torch.testing.assert_close(node.execute(inversion, 15, 0.5).args[0], whole)

    def interrupt(value, total, *more, **others):
        if total == rows:
            raise InterruptedError

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", interrupt)
    with pytest.raises(InterruptedError):
        node.execute(inversion, 15, 0.5)


def video_of(*values, height=20, width=30):
    return torch.stack([torch.full((height, width, 3), float(value)) for value in values])


def test_videos_stand_side_by_side_with_their_labels():
    together, slices = CompareVideos.execute(video_of(0, 0), video_of(1, 1), labels="left, right").args
    assert together.shape == (2, 20 + 18, 30 + 4 + 30, 3)
    assert float(together[:, 18:, :30].max()) == 0 and float(together[:, 18:, 34:].min()) == 1
    assert 0 <= float(together[:, :18].min()) < 0.5  # the text
    assert slices.shape == (1, 20 + 18, 64, 3)


def test_without_labels_there_is_no_strip_for_them():
    assert CompareVideos.execute(video_of(0), video_of(1), labels=" ").args[0].shape[1] == 20


def test_a_shorter_video_holds_its_last_frame():
    together, _ = CompareVideos.execute(video_of(0, 0, 0), video_of(0.25, 0.75), labels="").args
    assert together[:, 0, -1, 0].tolist() == [0.25, 0.75, 0.75]


def test_videos_of_other_heights_are_scaled_to_the_first():
    together, _ = CompareVideos.execute(video_of(0), video_of(1, height=40, width=80), labels="").args
    assert together.shape == (1, 20, 30 + 4 + 40, 3)


def test_a_slice_is_one_column_over_time():
    ramp = torch.arange(30.0)[None, None, :, None] / 29 + torch.zeros(4, 20, 30, 3)
    video = ramp * torch.tensor([0.0, 1.0, 0.5, 1.0]).reshape(4, 1, 1, 1)
    _, slices = CompareVideos.execute(video, video, labels="", column=1.0).args
    row = slices[0, 7, :30, 0]
    assert row.unique_consecutive().tolist() == pytest.approx([0, 1, 0.5, 1])
    assert CompareVideos.execute(video, video, labels="", column=0.0).args[1][0, :, :30].abs().max() == 0


def test_up_to_four_videos_are_compared():
    videos = [video_of(value) for value in (0, 0.2, 0.4, 0.6)]
    together, _ = CompareVideos.execute(*videos, labels="a, b, c, d").args
    assert together.shape[2] == 4 * 30 + 3 * 4
    with pytest.raises(ValueError, match="there are 3 labels for 2 videos"):
        CompareVideos.execute(*videos[:2], labels="a, b, c")


def test_stacked_videos_keep_their_sizes_and_the_narrower_get_a_white_margin():
    together, _ = CompareVideos.execute(
        video_of(0, 0), video_of(0.5, height=10, width=50), labels="", layout="stacked"
    ).args
    assert together.shape == (2, 20 + 4 + 10, 50, 3)
    assert float(together[:, :20, :30].max()) == 0 and float(together[:, :20, 30:].min()) == 1
    assert together[:, 24:].unique().tolist() == [0.5]


def test_a_wipe_shows_the_first_video_left_of_a_line_that_goes_right_and_comes_back():
    first, second = video_of(0, 0, 0, 0, 0), video_of(*[0.5] * 5, height=40, width=80)
    wiped, _ = CompareVideos.execute(first, second, labels="", layout="wipe").args
    assert wiped.shape == (5, 20, 30, 3)
    shares = [float((frame == 0).float().mean()) for frame in wiped]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0], abs=0.05)
    assert wiped[1, 0, :14].max() == 0 and wiped[1, 0, 14:16].min() == 1 and (wiped[1, 0, 16:] == 0.5).all()
    assert CompareVideos.execute(first[:1], second, labels="a, b", layout="wipe").args[0].shape == (5, 38, 30, 3)


def test_a_wipe_is_between_two_videos():
    with pytest.raises(ValueError, match="a wipe is between two videos, and 3 are connected"):
        CompareVideos.execute(video_of(0), video_of(1), video_of(0), labels="", layout="wipe")


def test_grey_videos_are_compared_in_colour_and_empty_ones_are_refused_by_name():
    grey, _ = CompareVideos.execute(video_of(0.25)[..., :1], video_of(0.5), labels="").args
    assert torch.equal(grey, CompareVideos.execute(video_of(0.25), video_of(0.5), labels="").args[0])
    with pytest.raises(ValueError, match="Compare Videos: the second video is empty"):
        CompareVideos.execute(video_of(0), video_of(0)[:0])
