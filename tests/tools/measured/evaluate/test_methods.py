"""What is run: graphs that a real ComfyUI runs, and jobs that fit them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfyui_stem.batch.comfyui.events import title_of
from comfyui_stem.batch.workflow import checked, filled
from comfyui_stem.nodes import edit_video
from comfyui_stem.nodes.methods.fatezero.presets import PRESETS as FATEZERO_PRESETS
from comfyui_stem.tools.demo.pictures import write_mp4
from comfyui_stem.tools.measured.evaluate import methods
from comfyui_stem.tools.measured.evaluate.clips import KINDS, Edit
from comfyui_stem.tools.measured.evaluate.example import RATE
from comfyui_stem.tools.measured.evaluate.methods import INVERSION, METHODS, groups
from comfyui_stem.tools.measured.evaluate.workflows import EDIT, FUSED, OWN, PLAIN, VAE, Settings, shown
from comfyui_stem.tools.measured.quality.fatezero import PRESET_OF

TINY = Settings("tiny.safetensors", width=64, height=64, frames=2, steps=2, cfg=4.0, negative="", seed=3)
BASES = (8, 4)
EDITS = [
    Edit("a1", "/clips/a.mp4", "a red square", "a blue square", "colour", "row 1"),
    Edit("a2", "/clips/a.mp4", "a red square", "a sketch of a red square", "style", "row 2"),
    Edit("b", "/clips/b.mp4", "a red square", "a red circle", "object", "row 3"),
]


def made(settings=TINY, edits=EDITS, timed=1):
    return {group.name: group for group in groups([INVERSION, *METHODS], edits, settings, BASES, timed)}


def test_kinds_of_edits_are_those_of_the_nodes():
    assert methods.GUIDANCE == edit_video.GUIDANCE and tuple(methods.GUIDANCE) == KINDS
    assert methods.PRESETS == PRESET_OF and set(methods.PRESETS.values()) <= set(FATEZERO_PRESETS)


def test_every_edit_is_made_by_every_method_and_with_every_number_of_bases_by_one():
    jobs = {name: [job.id for job in group.jobs] for name, group in made().items()}
    assert jobs["ddim-tokenflow"] == jobs["ddim-fatezero"] == ["a1", "a2", "b"]
    assert jobs["stem-fatezero"] == ["a1.k8", "a2.k8", "b.k8"]
    assert jobs["stem-tokenflow"] == [*jobs["stem-fatezero"], "a1.k4", "a2.k4", "b.k4"]


def test_inversions_are_timed_on_the_first_clips_alone_each_in_a_comfyui_of_its_own():
    found = made(timed=1)
    timed = {name: [job.id for job in group.jobs] for name, group in found.items() if name not in METHODS}
    assert timed == {
        methods.ONE_FRAME: ["a1"],
        methods.CONTEXT: ["a1.2-frames", "a1.all-frames"],
        methods.BASES: ["a1.k8", "a1.k4"],
    }
    assert all(found[name].alone for name in timed) and not any(found[name].alone for name in METHODS)


def test_a_clip_goes_through_all_inversions_before_the_next():
    order = [(group.name, len(group.jobs)) for group in groups([INVERSION], EDITS, TINY, BASES, timed=5)]
    each = (methods.ONE_FRAME, methods.CONTEXT, methods.BASES)
    assert order == [*zip(each, (1, 2, 2), strict=True), *zip(each, (2, 4, 4), strict=True)]


def test_a_style_gets_its_new_words_weighted_and_small_words_do_not_count():
    weights = {job.id: job.values["FateZero Edit.word_weights"] for job in made()["ddim-fatezero"].jobs}
    assert weights == {"a1": "", "a2": "sketch: 10", "b": ""}


@pytest.mark.host
def test_every_graph_runs_in_a_real_comfyui_and_measures_what_it_promises(host, tmp_path):
    clip = tmp_path / "clip.mp4"
    write_mp4(clip, moving_square(), RATE)
    edits = [Edit("a", str(clip), "a red square", "a sketch of a red square", "style", "row 1")]
    name, info = host.upload(clip), host.object_info()
    for group in made(edits=edits).values():
        jobs = checked(group.workflow, group.jobs, info)
        result = host.run(filled(group.workflow, jobs[-1], name))
        texts = {
            title_of(group.workflow, node): json.loads(shown_["text"][0])["measures"]
            for node, shown_ in result.outputs.items()
            if "text" in shown_
        }
        wanted = {
            "ddim-tokenflow": [EDIT, VAE, PLAIN],
            "stem-tokenflow": [EDIT, VAE, PLAIN, OWN],
            "ddim-fatezero": [EDIT, VAE, FUSED],
            "stem-fatezero": [EDIT, VAE, PLAIN, OWN, FUSED],
        }.get(group.name, [])
        assert set(texts) == set(map(shown, wanted)), group.name
        names = {"psnr", "ssim", "warp_error", "source_warp_error"}
        assert all(names <= measures.keys() for measures in texts.values())
        if wanted:
            assert texts[shown(VAE)]["psnr"]["value"] >= texts[shown(wanted[-1])]["psnr"]["value"] > 10
            assert len(texts[shown(VAE)]["ssim"]["frames"]) == TINY.frames
        saved = {title_of(group.workflow, node) for node, kinds in result.outputs.items() if "images" in kinds}
        assert "Save source video" in saved and ("Save edited video" in saved) == bool(wanted)


@pytest.mark.host
def test_with_clip_models_and_raft_the_graphs_fit_the_nodes_too(host):
    info = host.object_info()
    files = {"clip_vision": "v.safetensors", "clip_text": "t.safetensors", "flow": "r.safetensors"}
    settings = Settings("tiny.safetensors", **files)
    for name, group in made(settings).items():
        graph = group.workflow
        for entry in graph.values():
            inputs = info[entry["class_type"]]["input"]
            known = inputs["required"] | inputs.get("optional", {})
            assert set(inputs["required"]) <= set(entry["inputs"]) <= set(known), (name, entry)
            for field, value in entry["inputs"].items():
                if isinstance(value, list):
                    source, slot = value
                    assert known[field][0] in ("*", info[graph[source]["class_type"]]["output"][slot]), (name, field)
        named = set(files.values()) & {str(value) for entry in graph.values() for value in entry["inputs"].values()}
        assert named == (set(files.values()) if name in METHODS else set())


def moving_square():
    video = np.full((2, 64, 64, 3), 60, np.uint8)
    for number, frame in enumerate(video):
        frame[8 + 4 * number : 30 + 4 * number, 20:44] = (200, 30, 30)
    return video
