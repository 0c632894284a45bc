"""The whole edit as one node, in a real host."""

from __future__ import annotations

import copy
import io
import json

import av
import numpy as np
import pytest
from comfyui_stem.batch.comfyui.client import HostError
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo.workflow import node_of
from comfyui_stem.tools.shipped.workflows import FOLDER
from PIL import Image

pytestmark = pytest.mark.host

FRAMES, WIDTH, HEIGHT = 5, 96, 64
SMALL = {"width": WIDTH, "height": HEIGHT, "frames": FRAMES, "steps": 2, "cfg": 4.0}
EDIT, CLIP = "STEMEditVideo", "STEMVideoLoad"


@pytest.fixture(scope="module")
def prompt():
    """The shipped template at a small size, with the tiny checkpoint."""
    prompt = json.loads((FOLDER / "api" / "edit_video_by_text.json").read_text(encoding="utf-8"))
    prompt[node_of(prompt, EDIT)]["inputs"] |= SMALL
    prompt[node_of(prompt, CLIP)]["inputs"] |= {"width": WIDTH, "height": HEIGHT, "frame_cap": FRAMES}
    prompt[node_of(prompt, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = (
        locations.from_environment().checkpoint.name
    )
    return prompt


def changed(prompt, **values):
    prompt = copy.deepcopy(prompt)
    prompt[node_of(prompt, EDIT)]["inputs"] |= values
    return prompt


def ran(prompt, result):
    """Names of the nodes inside that were executed."""
    return {node.rpartition(".")[2] for node in result.seconds_by_node if node.startswith(node_of(prompt, EDIT) + ".")}


def videos(host, result):
    """Sizes and numbers of frames of the videos that were saved, by what they show."""
    found = {}
    for output in result.outputs.values():
        for file in output.get("images", []):
            with av.open(io.BytesIO(host.view(file))) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            found["beside" if "side_by_side" in file["filename"] else "edited"] = np.stack(frames)
    return found


def test_it_edits_the_video_and_a_new_target_or_seed_does_not_invert_again(host, prompt):
    host.forget_results()
    result = host.run(prompt, timeout=300)
    assert {"inversion", "edit"} <= ran(prompt, result)
    made = videos(host, result)
    assert made["edited"].shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert made["beside"].shape[0] == FRAMES and made["beside"].shape[2] >= 2 * WIDTH
    for change in ({"target_prompt": "a robot in the snow"}, {"seed": 7}, {"strength": 0.2}, {"edit": "object"}):
        again = host.run(changed(prompt, **change), timeout=300)
        assert "edit" in ran(prompt, again) and not ran(prompt, again) & {"load", "bases", "encode", "inversion"}, (
            change
        )


def test_several_target_prompts_share_one_inversion_and_one_of_them_alone_is_there_already(host, prompt):
    host.forget_results()
    several = changed(prompt, target_prompt="a robot in the snow\n---\na clay rabbit")
    result = host.run(several, timeout=300)
    assert {"inversion", "edit", "edit 2", "compare", "grid"} - ran(several, result) == {"grid"}
    made = videos(host, result)
    assert made["beside"].shape[0] == FRAMES and made["beside"].shape[2] >= 3 * WIDTH
    alone = host.run(changed(prompt, target_prompt="a clay rabbit"), timeout=300)
    assert not ran(prompt, alone) & {"load", "inversion", "edit", "decode"}
    assert videos(host, alone)["edited"].shape == made["edited"].shape


def test_outside_a_mask_the_frames_stay_to_the_pixel(host, prompt):
    mask = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 32, "height": 32}}
    nodes = {
        "mask": mask,
        "parts": {"class_type": "GetVideoComponents", "inputs": {"video": [node_of(prompt, EDIT), 0]}},
        "edited": {"class_type": "SaveImage", "inputs": {"images": ["parts", 0], "filename_prefix": "masked"}},
        "source": {
            "class_type": "SaveImage",
            "inputs": {"images": [node_of(prompt, CLIP), 0], "filename_prefix": "source"},
        },
    }
    result = host.run(changed(prompt, mask=["mask", 0]) | nodes, timeout=300)
    shown = {
        name: [np.asarray(Image.open(io.BytesIO(host.view(file)))) for file in result.outputs[name]["images"]]
        for name in ("source", "edited")
    }
    assert len(shown["edited"]) == FRAMES and np.array_equal(shown["edited"], shown["source"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("  ", "the target prompt is empty"),
        ("a fox\n---\n", "target prompt 2 of 2 is empty"),
        (None, "the target prompt is the source prompt, so nothing would change"),
    ],
)
def test_a_target_prompt_that_asks_for_nothing_is_refused(host, prompt, target, message):
    if target is None:
        target = prompt[node_of(prompt, EDIT)]["inputs"]["source_prompt"]
    with pytest.raises(HostError, match=f"Edit Video by Text: {message}"):
        host.run(changed(prompt, target_prompt=target), timeout=300)
