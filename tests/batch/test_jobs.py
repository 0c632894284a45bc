"""Tables and folders become jobs, or a message with the row."""

from __future__ import annotations

import json
import sys

import pyarrow
import pytest
from comfyui_stem.batch.jobs import JobsError, read_jobs
from pyarrow import parquet


@pytest.fixture
def clips(tmp_path):
    for name in ("a.mp4", "b.mp4", "c d.MOV"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "notes.txt").write_text("no video")
    return tmp_path


def table(folder, text, name="jobs.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_csv_gives_a_job_for_each_row_with_paths_from_its_own_folder(clips):
    columns = "\ufeffid,video,source,target,STEM Bases.num_bases,#note"
    text = f'{columns}\none,a.mp4,"a dog, running",a wolf,64,mine\n,b.mp4,a cat,,,\n\n'
    (one, two), warnings = read_jobs(table(clips, text), {"target": "a tiger"})
    assert (one.id, one.video) == ("one", str(clips / "a.mp4"))
    assert one.values == {"source": "a dog, running", "target": "a wolf", "STEM Bases.num_bases": "64"}
    assert two.values == {"source": "a cat", "target": "a tiger"} and two.id.startswith("b-")
    assert two.row == "jobs.csv, line 3" and not warnings


def test_jsonl_and_parquet_say_the_same_as_csv(clips):
    rows = [{"id": "x", "video": "a.mp4", "target": "ein Löwe", "TokenFlow Edit.cfg": 4.5}]
    (from_lines,), _ = read_jobs(table(clips, "\n".join(map(json.dumps, rows)), "jobs.jsonl"))
    assert from_lines.values == {"target": "ein Löwe", "TokenFlow Edit.cfg": 4.5}
    parquet.write_table(pyarrow.Table.from_pylist(rows), clips / "jobs.parquet")
    (from_parquet,), _ = read_jobs(clips / "jobs.parquet")
    assert (from_parquet.id, from_parquet.content) == (from_lines.id, from_lines.content)


def test_parquet_without_pyarrow_says_what_to_install(clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(JobsError, match="pip install pyarrow"):
        read_jobs(table(clips, "", "jobs.parquet"))


def test_a_folder_gives_its_videos_with_one_pair_of_prompts(clips):
    jobs, _ = read_jobs(clips, {"source": "a dog", "target": "a wolf"})
    assert [job.video.rsplit("/", 1)[1] for job in jobs] == ["a.mp4", "b.mp4", "c d.MOV"]
    assert all(job.values == {"source": "a dog", "target": "a wolf"} for job in jobs)
    assert jobs[2].id.startswith("c_d-")


def test_a_name_made_from_a_clip_tells_its_content_and_its_settings(clips):
    def name(target):
        return read_jobs(table(clips, f"video,target\na.mp4,{target}\n"))[0][0].id

    first = name("a wolf")
    assert name("a wolf") == first != name("a fox")
    (clips / "a.mp4").write_bytes(b"another film")
    assert name("a wolf") != first


def test_a_row_that_repeats_another_runs_once_and_is_told(clips):
    jobs, warnings = read_jobs(table(clips, "id,video,target\nx,a.mp4,a fox\nx,a.mp4,a fox\n"))
    assert len(jobs) == 1
    assert warnings == ["jobs.csv, line 3 repeats jobs.csv, line 2 (x); it runs once."]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("id,video,target\nx,a.mp4,a fox\nx,b.mp4,a fox\n", "line 2 and jobs.csv, line 3 have the id 'x', but differ"),
        ("id,video\nx,a.mp4\nX,b.mp4\n", "which some file systems take for one"),
        ("id,video\n../../x,a.mp4\n", r"line 2 has the id '\.\./\.\./x'\. An id names a folder"),
        ("id,video\n.hidden,a.mp4\n", "An id names a folder"),
        ("id,video\nx,no.mp4\n", "line 2: there is no video at .*no.mp4"),
        ("id,target\nx,a fox\n", "line 2 names no video"),
        ("video,Target\na.mp4,a fox\n", "a column 'Target', which is none of id, video, source, target"),
        ("video,target\na.mp4,a dog, running\n", "line 2 has more cells than there are columns"),
        ("video,target,target\na.mp4,a,b\n", "two columns named target"),
        ("video\n", "holds no jobs"),
        ('video\n"a.mp4\n', "cannot be read as CSV"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_row(clips, text, why):
    with pytest.raises(JobsError, match=why):
        read_jobs(table(clips, text))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("jobs.jsonl", '{"video": "a.mp4"}\n{', "line 2 is not JSON"),
        ("jobs.jsonl", "[1]", "line 1 is not an object"),
        ("jobs.xlsx", "", "none of .csv, .jsonl, .parquet, nor a folder"),
    ],
)
def test_a_file_of_another_kind_is_refused(clips, name, text, why):
    with pytest.raises(JobsError, match=why):
        read_jobs(table(clips, text, name))


def test_a_table_that_is_not_there_is_told(tmp_path):
    with pytest.raises(JobsError, match="no table or folder at"):
        read_jobs(tmp_path / "jobs.csv")
