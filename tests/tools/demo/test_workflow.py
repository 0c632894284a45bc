"""What the demo fills into the shipped workflow and reads off its result."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from comfyui_stem.tools import demo, locations
from comfyui_stem.tools.demo import example
from comfyui_stem.tools.demo.workflow import (
    QUICK,
    SAVES,
    SMALL_MODEL,
    STEM_FATEZERO,
    TOKENFLOW,
    WORKFLOWS,
    Choices,
    DemoError,
    Dimensions,
    Wish,
    fill_in,
    load,
    node_titled,
    outputs_by_title,
    playback_rate,
    seconds_of,
    steps_of,
)
from comfyui_stem.tools.locations import Locations
from comfyui_stem.tools.small_model.rendered_clips import render
from comfyui_stem.tools.small_model.rendered_clips.rendering import as_bytes


def node(title, **inputs):
    return {"class_type": "Any", "inputs": inputs, "_meta": {"title": title}}


PROMPT = {
    "1": node("Video Load", file="x.mp4", width=512, height=512, frame_cap=24, every_nth=1, target_fps=0.0),
    "2": node("Load Checkpoint", ckpt_name="x.safetensors"),
    "3": node("Source prompt", text="shipped source"),
    "4": node("Target prompt", text="shipped target"),
    **{f"1{number}": node(title, steps=50) for number, title in enumerate(TOKENFLOW.stages.values())},
    **{f"2{number}": node(title) for number, title in enumerate(SAVES.values())},
}


def test_the_choices_are_filled_in_and_the_shipped_workflow_is_left_as_it_is():
    before = copy.deepcopy(PROMPT)
    choices = Choices(Path("a/b.mp4"), Path("c/d.safetensors"), "s")
    filled = fill_in(PROMPT, choices, Wish("edit", "t"), "uploaded.mp4")
    assert filled["1"]["inputs"] == {**PROMPT["1"]["inputs"], "file": "uploaded.mp4"}
    assert filled["2"]["inputs"]["ckpt_name"] == "d.safetensors"
    assert [filled[key]["inputs"]["text"] for key in "34"] == ["s", "t"]
    assert before == PROMPT


def test_what_is_not_chosen_stays_as_the_workflow_has_it():
    filled = fill_in(PROMPT, Choices(Path("b.mp4"), Path("d.safetensors")), Wish(), "b.mp4")
    assert filled["1"]["inputs"]["width"] == 512 and steps_of(filled, TOKENFLOW) == 50
    assert [filled[key]["inputs"]["text"] for key in "34"] == ["shipped source", "shipped target"]


def test_a_size_and_an_edits_own_settings_change_their_fields_and_no_others():
    shipped = load(demo.FOLDER / "stem_fatezero_object.json")
    own = {("FateZero Edit", "preset"): "style"}
    choices = Choices(Path("b.mp4"), Path("d.safetensors"), "s", dimensions=Dimensions(64, 32, 5, 7))
    filled = fill_in(shipped, choices, Wish("edit", "t", STEM_FATEZERO, own), "b.mp4")
    changed = {
        (entry["_meta"]["title"], field): value
        for key, entry in filled.items()
        for field, value in entry["inputs"].items()
        if shipped[key]["inputs"][field] != value
    }
    assert changed == {
        ("Video Load", "file"): "b.mp4",
        ("Load Checkpoint", "ckpt_name"): "d.safetensors",
        ("Source prompt", "value"): "s",
        ("FateZero Edit", "target_prompt"): "t",
        ("Video Load", "width"): 64,
        ("Video Load", "height"): 32,
        ("Video Load", "frame_cap"): 5,
        ("STEM Inversion", "steps"): 7,
        **STEM_FATEZERO.settings,
        **own,
    }


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_workflow_of_the_demo_has_the_fields_and_titles_that_are_looked_for(workflow):
    shipped = load(demo.FOLDER / f"{workflow.name}.json")
    choices = Choices(Path("b.mp4"), Path("d.safetensors"), "s", dimensions=SMALL_MODEL)
    filled = fill_in(shipped, choices, Wish("edit", "t", workflow), "b.mp4")
    assert steps_of(filled, workflow) == SMALL_MODEL.steps
    for title in (*SAVES.values(), *workflow.stages.values()):
        assert node_titled(filled, title)


@pytest.mark.parametrize("twice", [False, True])
def test_a_title_that_does_not_name_one_node_is_an_error(twice):
    prompt = {"1": node("Video Load"), "2": node("Video Load")} if twice else {}
    with pytest.raises(DemoError, match=f"has {2 * twice} nodes titled 'Video Load'"):
        node_titled(prompt, "Video Load")


def test_a_node_without_the_input_is_an_error():
    prompt = {**PROMPT, "1": node("Video Load", video="x")}
    with pytest.raises(DemoError, match="no input 'file', only video"):
        fill_in(prompt, Choices(Path("b.mp4"), Path("d")), Wish(), "b.mp4")


def test_a_workflow_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DemoError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_files_are_found_by_what_they_show_and_none_may_be_missing():
    outputs = {node_titled(PROMPT, title): {"images": [title]} for title in SAVES.values()}
    assert outputs_by_title(PROMPT, outputs) == {name: [title] for name, title in SAVES.items()}
    assert outputs_by_title(PROMPT, outputs, ["edit"]) == {"edit": ["Save edit"]}
    del outputs[node_titled(PROMPT, "Save edit")]
    with pytest.raises(DemoError, match="'Save edit' saved no pictures"):
        outputs_by_title(PROMPT, outputs)


def test_seconds_are_those_of_the_titled_stages():
    seconds = {"10": 1.5, "11": 2.5, "12": 3.5, "20": 99.0}
    assert seconds_of(PROMPT, TOKENFLOW, seconds) == {"inversion": 1.5, "reconstruction": 2.5, "edit": 3.5}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, Fraction(25)),
        ({"every_nth": 2}, Fraction(25, 2)),
        ({"target_fps": 12.0}, Fraction(12)),
        ({"target_fps": 23.976}, Fraction(24000, 1001)),
        ({"target_fps": 10.0, "every_nth": 5}, Fraction(2)),
    ],
)
def test_videos_are_written_at_the_clips_own_pace(inputs, expected):
    assert playback_rate({"1": node("Video Load", **inputs)}, demo.CLIP) == expected


@pytest.fixture
def where(tmp_path):
    where = Locations(tmp_path)
    for file in (where.checkpoint, where.host / "models" / "checkpoints" / "known.safetensors"):
        file.parent.mkdir(parents=True)
        file.touch()
    return where


def choose(where, *arguments):
    return demo.choose(demo.parse(list(arguments)), where)


@pytest.mark.parametrize(
    ("every", "edits", "dimensions"), [("", example.WISHES[:1], QUICK), ("1", example.WISHES, SMALL_MODEL)]
)
def test_the_rendered_clip_gets_one_edit_or_all_from_the_small_model(where, every, edits, dimensions):
    chosen = choose(where, f"--all={every}", "--video=", "--checkpoint=", "--source=", "--target=")
    assert (chosen.checkpoint, chosen.source_prompt) == (locations.TRAINED, example.SCENE.caption)
    assert locations.TRAINED.is_file()
    assert (chosen.wishes, chosen.dimensions, chosen.example) == (edits, dimensions, True)


def test_all_edits_are_of_every_kind_and_by_every_workflow():
    assert {wish.label.split(":")[0] for wish in example.WISHES[:3]} == {"object", "style", "colour"}
    assert {wish.workflow.name for wish in example.WISHES} == {workflow.name for workflow in WORKFLOWS}


def test_another_target_for_the_rendered_clip_is_its_only_edit(where):
    chosen = choose(where, "--target=a flat red key on a striped blue background")
    assert chosen.wishes == (Wish("edit", "a flat red key on a striped blue background"),)
    assert chosen.source_prompt == example.SCENE.caption


def test_a_persons_clip_goes_through_the_small_model_until_there_is_a_checkpoint(where, tmp_path):
    video = tmp_path / "clip.mp4"
    video.touch()
    chosen = choose(where, f"--video={video}", "--source=a dog", "--target=a wolf")
    assert chosen == Choices(video, locations.TRAINED, "a dog", (Wish("edit", "a wolf"),), SMALL_MODEL)


def test_the_examples_captions_differ_from_its_scene_in_one_word_each():
    words = example.SCENE.caption.split()
    for wish in example.WISHES:
        edited = wish.prompt.split()
        assert len(edited) == len(words)
        assert sum(a != b for a, b in zip(words, edited, strict=True)) == 1


def test_the_examples_clip_is_its_scene_again_at_the_size_that_the_model_knows(tmp_path):
    example.write_clip(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == example.RATE
        frames = np.stack([f.to_ndarray(format="rgb24", width=128, height=128) for f in container.decode(video=0)])
    expected = as_bytes(render(example.SCENE, example.MOTION, example.FRAMES).frames).numpy()
    assert frames.shape == expected.shape
    # of 255: what H.264 costs
    assert np.abs(frames.astype(int) - expected).mean() < 4
    assert {name: truth.shape for name, truth in example.truths().items()} == dict.fromkeys(
        (wish.label for wish in example.WISHES), expected.shape
    )


def test_a_persons_own_files_and_prompts_are_taken(where, tmp_path):
    video = tmp_path / "my clip.mp4"
    video.touch()
    chosen = choose(where, f"--video={video}", "--checkpoint=known.safetensors", "--source=-a dog", '--target=a "wolf"')
    assert chosen == Choices(
        video, where.host / "models" / "checkpoints" / "known.safetensors", "-a dog", (Wish("edit", 'a "wolf"'),)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video=none.mp4", "--source=a", "--target=b"], "no video at none.mp4"),
        (["--video=none.mp4", "--source=a"], "without both prompts"),
        (["--checkpoint=none.safetensors"], "no checkpoint at none.safetensors"),
    ],
)
def test_what_is_missing_is_named(where, arguments, message):
    with pytest.raises(DemoError, match=message):
        choose(where, *arguments)


def test_a_missing_file_ends_the_command_with_a_message_and_no_traceback(where, capsys, monkeypatch):
    monkeypatch.setenv("STEM_SETUP_DIR", str(where.setup))
    assert demo.main(["--checkpoint=none.safetensors"]) == 1
    assert capsys.readouterr().out.startswith("demo stopped: There is no checkpoint")


@pytest.mark.parametrize(("processors", "chosen", "expected"), [(2, None, "1"), (8, None, None), (2, "2", None)])
def test_few_processors_get_one_thread_unless_a_person_chose(monkeypatch, processors, chosen, expected):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert demo.host_environment().get("OMP_NUM_THREADS") == expected


def test_a_large_video_raises_the_hosts_limit(tmp_path):
    small, large = tmp_path / "small.mp4", tmp_path / "large.mp4"
    small.touch()
    with large.open("wb") as file:
        file.truncate(300 * 2**20)
    assert "--max-upload-size" not in demo.host_arguments(small)
    assert demo.host_arguments(large)[-2:] == ["--max-upload-size", "301"]
