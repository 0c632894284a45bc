from __future__ import annotations

import os
import time

import folder_paths
import pytest
from comfyui_stem.nodes.folders import (
    EXAMPLE,
    file_state,
    free_path,
    input_video_path,
    input_videos,
    inside_folder,
    inversion_path,
    saved_inversions,
)
from comfyui_stem.nodes.video import VideoError


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "input"
    (inside / "sub").mkdir(parents=True)
    (inside / "clip.mp4").write_bytes(b"inside")
    (inside / "sub" / "clip.mp4").write_bytes(b"inside")
    (tmp_path / "secret.mp4").write_bytes(b"outside")
    (tmp_path / "input2").mkdir()
    (tmp_path / "input2" / "clip.mp4").write_bytes(b"outside")
    return inside


@pytest.mark.parametrize("name", ["clip.mp4", "sub/clip.mp4", "sub/../clip.mp4"])
def test_files_of_the_folder_are_found(folder, name):
    assert inside_folder(str(folder / name), str(folder)) == os.path.realpath(folder / name)


@pytest.mark.parametrize("name", ["../secret.mp4", "sub/../../secret.mp4", "../input2/clip.mp4", ".", "..", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(folder, name):
    with pytest.raises(VideoError, match="outside the input folder.*Copy the video itself"):
        inside_folder(os.path.join(str(folder), name), str(folder))


def test_an_absolute_path_is_refused(folder, tmp_path):
    with pytest.raises(VideoError, match="outside the input folder"):
        inside_folder(os.path.join(str(folder), str(tmp_path / "secret.mp4")), str(folder))


def test_links_that_leave_the_folder_are_refused(folder, tmp_path):
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "linked").symlink_to(tmp_path / "input2")
    for name in ("link.mp4", "linked/clip.mp4"):
        with pytest.raises(VideoError, match="outside the input folder"):
            inside_folder(str(folder / name), str(folder))


def test_a_linked_folder_is_still_the_input_folder(folder, tmp_path):
    (tmp_path / "alias").symlink_to(folder)
    assert inside_folder(str(tmp_path / "alias" / "clip.mp4"), str(tmp_path / "alias"))


@pytest.mark.parametrize("name", ["missing.mp4", "sub"])
def test_what_is_not_a_file_is_refused(folder, name):
    with pytest.raises(VideoError, match="There is no file '.*' in the input folder"):
        inside_folder(str(folder / name), str(folder))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_instead_of_waited_for(folder):
    os.mkfifo(folder / "pipe.mp4")
    with pytest.raises(VideoError, match="There is no file 'pipe.mp4'"):
        inside_folder(str(folder / "pipe.mp4"), str(folder))


def test_the_state_changes_with_content_and_with_time(folder):
    path = folder / "clip.mp4"
    before = file_state(str(path))
    assert file_state(str(path)) == before
    stat = path.stat()
    path.write_bytes(b"another length")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    longer = file_state(str(path))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert len({before, longer, file_state(str(path))}) == 3


@pytest.fixture
def input_folder(folder, monkeypatch):
    monkeypatch.setattr(folder_paths, "input_directory", str(folder))
    return folder


def test_every_file_that_can_be_read_is_offered_also_in_subfolders(input_folder):
    names = "a.ts b.M2TS c.mts d.3gp e.vob f.mxf g.gif h.apng i.ivf j.nut k.webm sub/deep/l.mkv".split()
    (input_folder / "sub" / "deep").mkdir()
    (input_folder / ".hidden").mkdir()
    for name in (*names, "picture.png", "sound.wav", "notes.txt", ".hidden/m.mp4", "ts"):
        (input_folder / name).write_bytes(b"")
    assert input_videos() == sorted(["clip.mp4", *names[:-1]]) + ["sub/clip.mp4", "sub/deep/l.mkv", EXAMPLE]
    for name in input_videos()[:-1]:
        assert input_video_path(name) == os.path.realpath(input_folder / name)


def test_a_name_from_windows_is_found(input_folder):
    assert input_video_path("sub\\clip.mp4") == os.path.realpath(input_folder / "sub" / "clip.mp4")
    (input_folder / "sub\\clip.mp4").write_bytes(b"a name with a backslash")
    if os.name != "nt":
        assert input_video_path("sub\\clip.mp4") == os.path.realpath(input_folder / "sub\\clip.mp4")
    with pytest.raises(VideoError, match="outside the input folder"):
        input_video_path("..\\secret.mp4")


def test_dates_in_a_prefix_are_filled_in_as_comfyuis_page_does_for_its_own_nodes(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    monkeypatch.setattr(time, "localtime", lambda: time.struct_time((2026, 3, 7, 14, 5, 9, 0, 66, 0)))
    for prefix, name in {
        "%date:yyyy-MM-dd%/clip": "clip",
        "a_%date:yy.M.d hh_mm_ss%": "a_26.3.7 14_05_09",
        "%date:h-m-s%%": "14-5-9%",
        "%%": "%%",
    }.items():
        path, _, subfolder = free_path(prefix, "Save Inversion")
        assert path.name == f"{name}_00001_.safetensors"
    assert free_path("%date:yyyy-MM-dd%/clip", "Save Inversion")[2].replace(os.sep, "/") == "inversions/2026-03-07"


def test_an_inversion_is_found_by_its_own_name_or_by_that_of_windows(input_folder):
    saved = input_folder / "inversions" / "sub" / "clip.safetensors"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"")
    assert inversion_path("sub\\clip.safetensors", "Load Inversion") == saved.resolve()
    if os.name != "nt":  # where a name may hold a backslash, as a prefix may
        (input_folder / "inversions" / "a\\b.safetensors").write_bytes(b"")
        assert "a\\b.safetensors" in saved_inversions()
        assert inversion_path("a\\b.safetensors", "Load Inversion").name == "a\\b.safetensors"


def test_an_output_folder_that_cannot_be_written_to_is_said(monkeypatch):
    def refused(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folder_paths, "get_save_image_path", refused)
    with pytest.raises(ValueError, match="Save Inversion: the output folder cannot be written to .*Read-only"):
        free_path("clip", "Save Inversion")
