"""Folders of clips and tables of their edits, or a message with the row."""

from __future__ import annotations

import av
import numpy as np
import pytest
from comfyui_stem.batch.jobs import JobsError
from comfyui_stem.tools.measured.evaluate.clips import read_edits
from PIL import Image


@pytest.fixture
def clips(tmp_path):
    """A video, and a clip as DAVIS has it."""
    folder = tmp_path / "clips"
    (folder / "bear").mkdir(parents=True)
    (folder / "dog.mp4").write_bytes(b"a dog")
    for number in range(3):
        Image.new("RGB", (48, 32), (200, 20 * number, 0)).save(folder / "bear" / f"{number:05d}.jpg", quality=95)
    return folder


def read(folder, *rows, columns="video,source,target,edit"):
    table = folder.parent / "prompts.csv"
    table.write_text("\n".join([columns, *rows]), encoding="utf-8")
    return read_edits(folder, table, folder.parent / "made")


def test_edits_of_a_clip_follow_each_other_and_the_first_kind_is_taken_where_none_is_said(clips):
    rows = ["bear,a bear,a lion,", "dog.mp4,a dog,a sketch of a dog,style", "bear,a bear,a red bear,colour"]
    edits = read(clips, *rows)
    assert [(edit.target, edit.kind) for edit in edits] == [
        ("a lion", "object"),
        ("a red bear", "colour"),
        ("a sketch of a dog", "style"),
    ]
    assert edits[0].video == edits[1].video and len({edit.id for edit in edits}) == 3
    assert [edit.id for edit in edits] == [edit.id for edit in read(clips, *rows)]


def test_pictures_become_a_video_of_as_many_frames_once(clips):
    bear, _ = read(clips, "bear,a bear,a lion,", "dog.mp4,a dog,a cat,")
    with av.open(bear.video) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 3
    assert np.abs([frame.mean((0, 1)) - (200, 20 * n, 0) for n, frame in enumerate(frames)]).max() < 8
    (clips / "bear" / "00003.jpg").write_bytes(b"")
    read(clips, "bear,a bear,a lion,", "dog.mp4,a dog,a cat,")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (["dog.mp4,a dog,a cat,"], "holds clips that prompts.csv has no row for: bear. Give each a row"),
        (["bear,a bear,a lion,", "cat.mp4,a cat,a dog,"], r"line 3: there is no video at .*cat\.mp4"),
        (["bear,a bear,,", "dog.mp4,a dog,a cat,"], "line 2 has no target"),
        (["bear,a bear,a lion,shape", "dog.mp4,a dog,a cat,"], "line 2: the edit is 'shape', which is none of object,"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(clips, rows, why):
    with pytest.raises(JobsError, match=why):
        read(clips, *rows)


def test_a_column_that_only_some_methods_know_is_refused(clips):
    with pytest.raises(JobsError, match="a column 'TokenFlow Edit.cfg'. All methods have to get the same"):
        read(clips, "bear,a,b,3", "dog.mp4,a,b,3", columns="video,source,target,TokenFlow Edit.cfg")


def test_pictures_of_several_sizes_are_no_clip(clips):
    Image.new("RGB", (8, 8)).save(clips / "bear" / "00003.jpg")
    with pytest.raises(JobsError, match="bear are of different sizes"):
        read(clips, "bear,a,b,", "dog.mp4,a,b,")
