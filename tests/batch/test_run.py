"""What is refused before anything runs."""

from __future__ import annotations

import pytest
from comfyui_stem.batch.jobs import Job, JobsError
from comfyui_stem.batch.results import Results
from comfyui_stem.batch.run import RunSettings, run_jobs
from comfyui_stem.batch.worker import WorkerSettings

WORKFLOW = {"1": {"class_type": "STEMVideoLoad", "inputs": {"file": ""}, "_meta": {"title": "Video Load"}}}


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
