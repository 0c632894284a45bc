"""A job's columns find their places in a workflow, and are held against ComfyUI's own nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comfyui_stem.batch.jobs import Job, JobsError
from comfyui_stem.batch.workflow import checked, filled, load_workflow, place, with_less_memory

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "workflows" / "api").glob("*.json"))
INFO = {
    "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["a.safetensors"], {}]}}},
    "STEMVideoLoad": {"input": {"required": {"file": ["COMBO", {"options": ["b.mp4"]}]}}},
    "STEMBases": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "num_bases": ["INT", {"min": 1, "max": 4096}],
                "temperature": ["FLOAT", {"min": 0.001, "max": 1.0}],
                "preset": ["COMBO", {"options": ["paper", "tokenflow"]}],
                "same": ["BOOLEAN", {}],
            }
        }
    },
    "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}}},
    "SaveVideo": {"input": {"required": {"filename_prefix": ["STRING", {}]}}},
}
BASES = {"model": ["1", 0], "num_bases": 256, "temperature": 0.05, "preset": "paper", "same": False}
WORKFLOW = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "STEMVideoLoad", "inputs": {"file": "x.mp4"}, "_meta": {"title": "My clip"}},
    "3": {"class_type": "STEMBases", "inputs": BASES, "_meta": {"title": "STEM Bases"}},
    "4": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": "", "clip": ["1", 1]},
        "_meta": {"title": "Target prompt"},
    },
    "5": {"class_type": "SaveVideo", "inputs": {"filename_prefix": "video/edit"}},
}


def job(**values):
    return Job("x", "/clips/a.mp4", values, "jobs.csv, line 2")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_workflow_takes_a_clip_and_its_prompts(file):
    workflow = load_workflow(file)
    columns = ["video", "source"] + ["target"] * (file.stem != "reconstruct_first")
    places = [place(workflow, column) for column in columns]
    assert len(set(places)) == len(columns)
    assert all(isinstance(workflow[node]["inputs"][field], str) for node, field in places)


def test_a_job_is_filled_in_and_the_workflow_stays_as_it_is():
    before = json.dumps(WORKFLOW)
    made = filled(WORKFLOW, job(target="a fox", **{"STEM Bases.num_bases": 64}), "a.mp4")
    assert made["2"]["inputs"]["file"] == "a.mp4" and made["4"]["inputs"]["text"] == "a fox"
    assert made["3"]["inputs"] == {**BASES, "num_bases": 64}
    assert made["5"]["inputs"]["filename_prefix"] == "x/video/edit"
    assert json.dumps(WORKFLOW) == before


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("source", "no place for the source: it needs 'Source prompt.text' or"),
        (
            "Bases.num_bases",
            "wants one node titled 'Bases'; the workflow has 0. Its titles: CheckpointLoaderSimple, M",
        ),
        ("STEM Bases.bases", "has no input 'bases', only model, num_bases"),
        ("STEM Bases.model", "is wired to another node"),
    ],
)
def test_a_column_without_a_place_is_refused_by_name(column, why):
    with pytest.raises(JobsError, match=why):
        place(WORKFLOW, column)


@pytest.mark.parametrize(
    ("field", "cell", "value"),
    [
        ("num_bases", "64", 64),
        ("num_bases", "64.0", 64),
        ("num_bases", 64, 64),
        ("temperature", "0.1", 0.1),
        ("preset", "tokenflow", "tokenflow"),
        ("same", "TRUE", True),
        ("same", False, False),
    ],
)
def test_cells_become_values_of_their_fields(field, cell, value):
    (made,) = checked(WORKFLOW, [job(**{f"STEM Bases.{field}": cell})], INFO)
    assert made.values[f"STEM Bases.{field}"] == value
    assert type(made.values[f"STEM Bases.{field}"]) is type(value)


@pytest.mark.parametrize(
    ("field", "cell", "why"),
    [
        ("num_bases", "many", "'many' is not a whole number"),
        ("num_bases", "1.5", "is not a whole number"),
        ("num_bases", "0", "is not from 1 to 4096"),
        ("temperature", "nan", "is not from"),
        ("preset", "Paper", "is none of paper, tokenflow"),
        ("same", "maybe", "neither true nor false"),
    ],
)
def test_a_cell_that_its_field_cannot_have_is_refused_with_the_row(field, cell, why):
    with pytest.raises(JobsError, match=f"jobs.csv, line 2, column 'STEM Bases.{field}': .*{why}"):
        checked(WORKFLOW, [job(**{f"STEM Bases.{field}": cell})], INFO)


def test_a_node_or_checkpoint_that_is_not_installed_is_named():
    with pytest.raises(JobsError, match=r"no node STEMBases \(STEM Bases\)"):
        checked(WORKFLOW, [], {name: info for name, info in INFO.items() if name != "STEMBases"})
    other = {**WORKFLOW, "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}}}
    with pytest.raises(JobsError, match="ckpt_name is 'b.safetensors', which this ComfyUI does not have. It has: a."):
        checked(other, [], INFO)


def test_after_running_out_of_memory_frames_go_through_one_at_a_time():
    workflow = {"1": {"class_type": "STEMTokenFlowEdit", "inputs": {"batch_size": 8, "steps": 20}}}
    assert with_less_memory(workflow)["1"]["inputs"] == {"batch_size": 1, "steps": 20}
    assert workflow["1"]["inputs"]["batch_size"] == 8


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"nodes": [], "links": []}', "is a saved graph"),
        ('{"1": {"inputs": {}}}', "node 1 has no class_type"),
        ('{"1": {"class_type": "A"}}', "node 1 has no inputs"),
        ("[]", "not a workflow in API form"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_no_workflow_in_api_form_is_told_apart(tmp_path, text, why):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(JobsError, match=why):
        load_workflow(tmp_path / "w.json")
