"""A clip comes into ComfyUI's folders alone, and what is saved of it gets names that tell what it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from comfyui_stem.batch.comfyui.client import Result
from comfyui_stem.batch.host_files import bring_in, clear, saved

WORKFLOW = {
    "3": {"class_type": "SaveVideo", "inputs": {}, "_meta": {"title": "Save edited video"}},
    "4": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "Save frames"}},
}


@pytest.fixture
def base(tmp_path):
    for name in ("input", "output", "temp"):
        (tmp_path / "host" / name).mkdir(parents=True)
    return tmp_path / "host"


def test_the_same_video_keeps_its_file_and_another_one_takes_its_place(base, tmp_path):
    one, other = tmp_path / "a.MP4", tmp_path / "b.mp4"
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    (base / "input" / "left").mkdir()
    name = bring_in(one, base)
    place = base / "input" / name
    assert place.read_bytes() == b"one" and place.suffix == ".mp4" and not place.is_symlink()
    before = place.stat()
    assert bring_in(one, base) == name
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert bring_in(other, base) != name and [file.read_bytes() for file in (base / "input").iterdir()] == [b"other"]


def test_a_video_that_has_changed_under_its_name_is_brought_again_also_where_it_was_copied(base, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("on another disk")

    monkeypatch.setattr(os, "link", refuse)
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    name = bring_in(video, base)
    assert (base / "input" / name).stat().st_mtime_ns == video.stat().st_mtime_ns
    video.write_bytes(b"another")
    assert bring_in(video, base) == name and (base / "input" / name).read_bytes() == b"another"


def test_saved_files_are_named_after_the_nodes_that_saved_them_and_previews_are_left_out(base):
    def files(*names, kind="output"):
        return [{"filename": name, "subfolder": "x", "type": kind} for name in names]

    outputs = {
        "3": {"images": files("x_00001_.mp4"), "animated": [True]},
        "4": {"images": [*files("a.png", "b.png"), *files("c.png", kind="temp")]},
    }
    result = Result(outputs, {}, "success", None)
    assert saved(base, WORKFLOW, result, "videos") == {"edited.mp4": base / "output" / "x" / "x_00001_.mp4"}
    assert list(saved(base, WORKFLOW, result, "all")) == ["edited.mp4", "frames_00000.png", "frames_00001.png"]


def test_nothing_of_a_clip_is_left_but_its_video(base):
    for place in ("input", "output", "temp"):
        (base / place / "file").write_text("")
        Path(base / place / "folder").mkdir()
    clear(base)
    assert sorted(entry.name for entry in base.glob("*/*")) == ["file", "folder"]
