"""Flow estimators on motion that is known."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.metrics.optical_flow import dis, estimate, raft, raft_bytes, weight_files
from comfyui_stem.tools.measured.bench.live_tensors import LiveTensors
from comfyui_stem.tools.measured.quality.clips import held_out_cases
from comfyui_stem.tools.small_model.rendered_clips import render


def drifting(dx, dy, frames=3, size=(64, 96)):
    """A smooth texture that moves by whole pixels."""
    coarse = torch.rand(1, 3, 12, 18, generator=torch.Generator().manual_seed(1))
    picture = torch.nn.functional.interpolate(coarse, (size[0] + 40, size[1] + 40), mode="bicubic").clamp(0, 1)[0]
    views = [picture[:, 20 - n * dy :, 20 - n * dx :][:, : size[0], : size[1]] for n in range(frames)]
    return torch.stack(views).movedim(1, -1)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (-2, 4)])
def test_dis_finds_a_known_drift_in_both_directions(dx, dy):
    flow = estimate(drifting(dx, dy), dis, "DIS")
    inner = (slice(None), slice(12, -12), slice(12, -12))
    for found, sign in ((flow.forward, 1), (flow.backward, -1)):
        error = (found[inner] - sign * torch.tensor([dx, dy])).norm(dim=-1)
        assert float(error.median()) < 0.3
    assert float(flow.seen[inner].float().mean()) > 0.9
    assert flow.shape == (3, 64, 96)


def test_dis_is_near_the_exact_flow_of_a_rendered_clip():
    case = held_out_cases(1)[0]
    clip = render(case.scene, case.motion, 4)
    flow = estimate(clip.frames, dis, "DIS")
    where = clip.masks[1:] & clip.backward_seen
    error = (flow.backward - clip.backward).norm(dim=-1)[where]
    still = clip.backward.norm(dim=-1)[where]
    assert float(error.median()) < 0.5 * float(still.median())


@pytest.mark.parametrize("kind", ["raft_small", "raft_large"])
def test_raft_is_torchvisions_with_the_given_weights(kind):
    from torchvision.models import optical_flow

    torch.manual_seed(0)
    network = getattr(optical_flow, kind)(weights=None).eval()
    video = drifting(1, 0, frames=2, size=(128, 136))
    between = raft(network.state_dict())
    with torch.inference_mode():
        first, second = (2 * frame.movedim(-1, 0)[None] - 1 for frame in video)
        expected = network(first, second)[-1].movedim(1, -1)
        torch.testing.assert_close(between(*video), expected[0])


def test_raft_takes_small_and_odd_sizes():
    from torchvision.models import optical_flow

    between = raft(optical_flow.raft_small(weights=None).state_dict())
    video = drifting(0, 0, frames=2, size=(50, 61))
    with torch.inference_mode():
        assert between(*video).shape == (50, 61, 2)


@pytest.mark.parametrize(("kind", "side"), [("raft_small", 384), ("raft_large", 384), ("raft_small", 640)])
def test_the_memory_of_raft_is_what_it_holds(kind, side):
    from torchvision.models import optical_flow

    weights = getattr(optical_flow, kind)(weights=None).state_dict()
    between = raft(weights)
    with torch.inference_mode(), LiveTensors() as live:
        between(*drifting(0, 0, frames=2, size=(side - 5, side)))
    held = live.peak + sum(weight.nbytes for weight in weights.values())
    assert 0.8 < raft_bytes(weights, side - 5, side) / held < 1.2
    # at 1080p the volume alone has 4 GB
    assert 8e9 < raft_bytes(weights, 1080, 1920) < 9e9


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match="not the weights of torchvision's raft_small or raft_large"):
        raft({"conv.weight": torch.zeros(3)})


@pytest.mark.parametrize(("video", "why"), [(torch.rand(1, 32, 32, 3), "1 frame"), (torch.rand(2, 9, 40, 3), "40x9")])
def test_what_has_no_motion_to_see_is_refused(video, why):
    with pytest.raises(ValueError, match=why):
        estimate(video, dis, "DIS")


def test_only_safetensors_are_offered(tmp_path):
    assert weight_files(tmp_path / "none") == []
    for name in ("b.safetensors", "a.safetensors", "raft.pth", "x.pkl"):
        (tmp_path / name).touch()
    assert weight_files(tmp_path) == ["a.safetensors", "b.safetensors"]
