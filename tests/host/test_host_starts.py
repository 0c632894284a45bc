"""The pack in a real host: it is imported, its nodes are there, and the tiny checkpoint works."""

from __future__ import annotations

import ast
import io
import re
import urllib.error
import urllib.parse

import numpy as np
import pytest
from comfyui_stem.batch.comfyui.client import HostError
from comfyui_stem.tools.locations import ROOT
from PIL import Image

pytestmark = pytest.mark.host


def text_to_image(checkpoint: str, frames: int = 2, steps: int = 2, seed: int = 1) -> dict[str, dict]:
    """A workflow of core nodes in API form."""

    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("CLIPTextEncode", text="a (silver:1.2) jeep", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=128, height=96, batch_size=frames),
        "5": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=seed,
            steps=steps,
            cfg=7.5,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="started"),
    }


def declared_node_ids() -> set[str]:
    """The node_id of every schema in nodes/, read from the source."""
    found = set()
    for file in (ROOT / "nodes").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "node_id" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    return found


def test_every_node_of_the_pack_is_registered(host):
    registered = {
        name for name, info in host.object_info().items() if info.get("python_module", "").endswith("ComfyUI-STEM")
    }
    assert registered == declared_node_ids() != set()


def test_the_log_reports_no_failed_import_and_no_error_of_the_pack(host, host_process):
    log = host_process.log_text()
    assert "IMPORT FAILED" not in log
    assert "comfy_entrypoint" not in log
    assert re.search(r"seconds: .*ComfyUI-STEM", log)


def test_the_page_gets_the_example_clip_and_no_other_file_by_its_mark(host):
    clip = (ROOT / "assets" / "big_buck_bunny.mp4").read_bytes()
    asked = {"filename": "big_buck_bunny.mp4 [example]", "type": "input", "subfolder": ""}
    assert host.view(asked) == clip
    for name in ("emoji_sd15.safetensors [example]", "../big_buck_bunny.mp4 [example]"):
        with pytest.raises(urllib.error.HTTPError):
            host.view(asked | {"filename": name})


def test_the_tiny_checkpoint_makes_pictures(host):
    finished = []
    prompt = text_to_image("tiny.safetensors")
    host.forget_results()  # other tests may have left results of the same nodes in the cache
    result = host.run(prompt, lambda event: event.kind == "finished" and finished.append(event.node), timeout=120)
    pictures = [np.asarray(Image.open(io.BytesIO(host.view(file)))) for file in result.outputs["7"]["images"]]
    assert [picture.shape for picture in pictures] == [(96, 128, 3)] * 2
    assert pictures[0].std() > 1
    assert (pictures[0] != pictures[1]).any()
    assert sorted(finished) == sorted(prompt)
    assert result.seconds_by_node["5"] > 0


def test_forgotten_results_are_computed_again_by_the_workflow_that_is_queued_right_behind(host):
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    for _ in range(10):
        host.run(prompt)
        assert host.run(prompt).seconds_by_node == {}
        host.forget_results()
        assert host.run(prompt).seconds_by_node.keys() == {"1", "2"}


def test_the_host_refuses_an_unknown_checkpoint_in_words(host):
    with pytest.raises(HostError, match="CheckpointLoaderSimple .node 1.: Value not in list: ckpt_name"):
        host.run(text_to_image("none.safetensors"))


def test_a_run_can_be_interrupted_and_the_host_works_on(host):
    def stop_at_the_second_step(event):
        if event.kind == "progress" and event.node == "5" and event.value >= 2:
            host.interrupt()

    result = host.run(text_to_image("tiny.safetensors", steps=400, seed=2), stop_at_the_second_step, 120, check=False)
    assert result.status == "interrupted"
    assert host.run(text_to_image("tiny.safetensors", steps=1, seed=3), timeout=120).status == "success"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_host_serves_the_help_page_of_every_node_with_its_picture(host, language):
    for node in declared_node_ids():
        text = host.request(f"/extensions/ComfyUI-STEM/docs/{node}/{language}.md").decode()
        assert text.startswith("# ")
        (picture,) = re.findall(r"\]\((pictures/[^)]+)\)", text)
        assert Image.open(io.BytesIO(host.request(f"/extensions/ComfyUI-STEM/docs/{picture}"))).format == "JPEG"


def test_the_host_knows_the_texts_in_both_languages(host):
    languages = host.get_json("/i18n")
    for language in ("en", "zh"):
        assert declared_node_ids() <= set(languages[language]["nodeDefs"])


def test_every_workflow_is_offered_as_a_template_with_a_thumbnail(host):
    offered = host.get_json("/workflow_templates")["ComfyUI-STEM"]
    assert sorted(offered) == sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))
    for name in offered:
        picture = host.request(f"/api/workflow_templates/ComfyUI-STEM/{urllib.parse.quote(name)}.jpg")
        assert Image.open(io.BytesIO(picture)).format == "JPEG"
