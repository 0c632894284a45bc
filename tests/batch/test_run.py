"""What a run decides by itself; tests/batch/test_pool.py has whole runs."""

from __future__ import annotations

import pytest
from comfyui_stem.batch.jobs import Job, JobsError
from comfyui_stem.batch.results import Results
from comfyui_stem.batch.run import Run, RunSettings, run_jobs
from comfyui_stem.batch.worker import WorkerSettings

WORKFLOW = {"1": {"class_type": "STEMVideoLoad", "inputs": {"file": ""}, "_meta": {"title": "Video Load"}}}


@pytest.mark.parametrize(
    ("machines", "asked", "workers", "cpus"),
    [
        ([{"CPU": 8}], 0, 2, 4),
        ([{"CPU": 6}], 0, 1, 4),
        ([{"CPU": 2}], 0, 1, 2),
        ([{"CPU": 2}, {"CPU": 2}], 0, 2, 2),
        ([{"CPU": 2}, {"CPU": 8}], 0, 5, 2),
        ([{"CPU": 2}, {"CPU": 1}], 1, 1, 2),
        ([{"CPU": 2}, {"CPU": 1}], 3, 3, 1),
        ([{"CPU": 16}], 2, 2, 4),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 8, "GPU": 1}], 0, 3, 1),
    ],
)
def test_every_worker_has_room_on_one_machine(tmp_path, machines, asked, workers, cpus):
    settings, said = pool_settings(tmp_path, machines, asked)
    assert (settings.workers, settings.cpus) == (workers, cpus)
    assert len(said) == 1


@pytest.mark.parametrize(("machines", "room"), [([{"CPU": 2}], 2), ([{"CPU": 8, "GPU": 1}], 1), ([{"memory": 1}], 0)])
def test_workers_that_have_no_room_are_told(tmp_path, machines, room):
    settings, said = pool_settings(tmp_path, machines, 3)
    assert settings.workers == 3
    assert said[1] == f"There is room for {room} of them; the others wait until more machines join."


def test_on_one_machine_more_workers_than_cpus_share_them(tmp_path):
    settings, said = pool_settings(tmp_path, [{"CPU": 2}], 16, "local")
    assert (settings.workers, settings.cpus) == (16, 0.125) and len(said) == 1


def pool_settings(folder, machines, workers, address="192.0.2.1:6379"):
    said = []
    settings = RunSettings(WorkerSettings(str(folder), "", ""), workers, address)
    return Run(Results(folder), {}, [], settings, None, said.append)._pool_settings(machines, 100), said


def test_a_clip_that_is_done_with_other_settings_is_refused_and_stays(tmp_path):
    results, settings = Results(tmp_path), RunSettings(WorkerSettings(str(tmp_path), "", ""))
    done = Job("a", __file__, {"target": "a fox"}, "jobs.csv, line 2")
    results.keep_jobs([done])
    results.commit("a", {}, {"id": "a"})
    assert run_jobs(results, WORKFLOW, [done], settings, lambda text: None) == 0
    changed = Job("a", __file__, {"target": "a cat"}, "jobs.csv, line 2")
    with pytest.raises(JobsError, match="jobs.csv, line 2: a is done, but with another video or other settings"):
        run_jobs(results, WORKFLOW, [changed], settings, lambda text: None)
    assert results.is_done("a") and results.jobs() == [done]


def test_another_workflow_in_the_same_folder_is_refused(tmp_path):
    results, settings = Results(tmp_path), RunSettings(WorkerSettings(str(tmp_path), "", ""))
    results.commit("a", {}, {"id": "a"})
    assert run_jobs(results, WORKFLOW, [Job("a", __file__)], settings, lambda text: None) == 0
    with pytest.raises(JobsError, match="was made with another workflow"):
        run_jobs(results, {**WORKFLOW, "2": WORKFLOW["1"]}, [Job("a", __file__)], settings, lambda text: None)
