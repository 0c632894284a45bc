"""The shipped edit over HTTP in a real host: attention backends, repeatability, interruption, refusals."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
from comfyui_stem.batch.comfyui.client import HostError
from comfyui_stem.batch.comfyui.process import HostProcess, device_arguments
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo import CLIP, FOLDER
from comfyui_stem.tools.demo.workflow import TOKENFLOW, Choices, Wish, fill_in, load, node_titled, outputs_by_title
from PIL import Image

pytestmark = pytest.mark.host

FRAMES = 3
SETTINGS = {
    "Video Load": {"width": 96, "height": 56, "frame_cap": FRAMES},
    "STEM Bases": {"num_bases": 32, "frames_per_batch": 2},
    "STEM Inversion": {"steps": 4},
    "TokenFlow Edit": {"batch_size": 2},
}


def edit_of(client, **changes):
    """The shipped workflow at a small size, for a host that `client` talks to."""
    choices = Choices(CLIP, locations.from_environment().checkpoint)
    workflow = load(FOLDER / f"{TOKENFLOW.name}.json")
    prompt = fill_in(workflow, choices, Wish(), client.upload(CLIP))
    for title, values in (SETTINGS | changes).items():
        prompt[node_titled(prompt, title)]["inputs"].update(values)
    return prompt


def pictures(client, prompt, result):
    """Saved frames by what they show, uint8 [n, h, w, 3]."""
    return {
        name: np.stack([np.asarray(Image.open(io.BytesIO(client.view(file))).convert("RGB")) for file in files])
        for name, files in outputs_by_title(prompt, result.outputs).items()
    }


def psnr(a, b):
    difference = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return 10 * np.log10(255**2 / difference) if difference else np.inf


@pytest.fixture(scope="module")
def undisturbed(host):
    """The pictures of a first run, with the attention that the host chooses on a CPU."""
    prompt = edit_of(host)
    return pictures(host, prompt, host.run(prompt, timeout=600))


def test_every_frame_is_reconstructed_and_edited(undisturbed):
    assert {frames.shape for frames in undisturbed.values()} == {(FRAMES, 56, 96, 3)}
    reconstruction, round_trip = undisturbed["reconstruction"], undisturbed["VAE round trip"]
    assert min(psnr(a, b) for a, b in zip(reconstruction, round_trip, strict=True)) > 25
    assert all(psnr(a, b) < 40 for a, b in zip(undisturbed["edit"], reconstruction, strict=True))


def rerun(client, prompt):
    """The same graph, but nothing of it from the host's cache."""
    client.forget_results()
    return pictures(client, prompt, client.run(prompt, timeout=600))


def test_batches_of_frames_and_a_trajectory_in_a_file_change_no_pixel(host, undisturbed):
    prompt = edit_of(
        host,
        **{
            "STEM Bases": {"num_bases": 32, "frames_per_batch": 0},
            "STEM Inversion": {"steps": 4, "keep_trajectory_in": "file"},
        },
    )
    whole = rerun(host, prompt)
    assert np.array_equal(whole["VAE round trip"], undisturbed["VAE round trip"])
    # Rounding flips single pixels from one base to another.
    assert psnr(whole["reconstruction"], undisturbed["reconstruction"]) > 30
    assert psnr(whole["edit"], undisturbed["edit"]) > 30


@pytest.mark.parametrize("title", ["STEM Inversion", "Reconstruct"])
def test_after_an_interruption_the_next_run_is_as_if_nothing_had_been(host, undisturbed, title):
    prompt = edit_of(host)
    node = node_titled(prompt, title)
    host.forget_results()

    def stop_in_the_middle(event):
        if event.node == node and event.kind == "progress" and event.value >= 2:
            host.interrupt()

    assert host.run(prompt, stop_in_the_middle, timeout=600, check=False).status == "interrupted"
    after = rerun(host, prompt)
    assert all(np.array_equal(after[name], frames) for name, frames in undisturbed.items())


def test_what_is_refused_reaches_the_user_and_leaves_the_host_well(host, undisturbed):
    prompt = edit_of(host, **{"TokenFlow Edit": {"steps": 3}})
    with pytest.raises(HostError, match="3 steps do not match the inversion"):
        host.run(prompt, timeout=600)
    after = rerun(host, edit_of(host))
    assert np.array_equal(after["edit"], undisturbed["edit"])


def test_the_other_attention_of_the_host_gives_the_same_reconstruction(tmp_path, undisturbed):
    where = locations.from_environment()
    arguments = [*device_arguments(), "--use-pytorch-cross-attention"]
    process = HostProcess(
        tmp_path, where.host, where.host_python, locations.PACKS, arguments, {"checkpoints": [where.checkpoint]}
    )
    with process:
        prompt = edit_of(process.client)
        ours = pictures(process.client, prompt, process.client.run(prompt, timeout=600))
    assert np.array_equal(ours["VAE round trip"], undisturbed["VAE round trip"])
    # Rounding flips single pixels from one base to another, so the pictures are close, not equal.
    assert psnr(ours["reconstruction"], undisturbed["reconstruction"]) > 30


def test_a_graph_can_be_queued_twice_with_another_prompt_and_one_inversion(host, undisturbed):
    prompt = edit_of(host)
    host.run(prompt, timeout=600)
    other = copy.deepcopy(prompt)
    other[node_titled(other, "Target prompt")]["inputs"]["text"] = "a robot in the snow"
    result = host.run(other, timeout=600)
    executed = {other[node]["_meta"]["title"] for node in result.seconds_by_node}
    assert "TokenFlow Edit" in executed and "STEM Inversion" not in executed
    assert not np.array_equal(pictures(host, other, result)["edit"], undisturbed["edit"])
