"""A real host takes the shipped API form as it is, and runs it, and that of 0.1.0 as well."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from comfyui_stem.batch.comfyui.process import link
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo import CLIP
from comfyui_stem.tools.shipped.workflows import FOLDER

pytestmark = pytest.mark.host

FRAMES = 3
SMALL = {"width": 64, "height": 64, "frame_cap": FRAMES, "num_bases": 16}
SHIPPED = sorted((FOLDER / "api").glob("*.json"))
OF_0_1_0 = sorted((locations.ROOT / "tests" / "workflows" / "api_0_1_0").glob("*.json"))


@pytest.fixture(params=[*SHIPPED, *OF_0_1_0], ids=lambda file: f"{file.parent.name}/{file.stem}")
def prompt(request, host, host_process):
    """A workflow, in a host that has its clip, and the tiny checkpoint under the name of its checkpoint."""
    prompt = json.loads(request.param.read_text(encoding="utf-8"))
    name = next(node["inputs"]["ckpt_name"] for node in prompt.values() if "ckpt_name" in node["inputs"])
    link(locations.from_environment().checkpoint, host_process.base / "models" / "checkpoints" / name)
    host.upload(CLIP)
    return prompt


def test_the_host_accepts_the_form_as_it_is(host, prompt):
    def stop_at_once(event):
        if event.kind == "started":
            host.interrupt()

    # a refusal raises an error; the full size would keep a processor busy for long
    assert host.run(prompt, stop_at_once, timeout=120, check=False).status == "interrupted"


def test_the_workflow_runs_to_its_end_at_a_small_size(host, prompt):
    for node in prompt.values():
        node["inputs"].update({field: value for field, value in SMALL.items() if field in node["inputs"]})
        if node["class_type"] == "STEMInversionSampler":
            node["inputs"]["steps"] = 2
        if node["class_type"] == "STEMEditVideo":
            node["inputs"] |= {"steps": 2, "frames": FRAMES}
    result = host.run(prompt, timeout=300)
    saved = Counter()
    for key, output in result.outputs.items():
        for files in output.values():
            saved[prompt[key]["class_type"]] += sum(isinstance(file, dict) for file in files)
    nodes = Counter(node["class_type"] for node in prompt.values())
    previewed = 1 if nodes["MaskComposite"] else FRAMES  # one mask for all frames
    shown = {"PreviewImage": previewed * nodes["PreviewImage"], "SaveImage": FRAMES * nodes["SaveImage"]}
    assert +saved == +Counter(shown | {"SaveVideo": nodes["SaveVideo"]})
