"""What a run decides by itself; tests/batch/test_pool.py has whole runs."""

from __future__ import annotations

import pytest
from comfyui_stem.batch.results import Results
from comfyui_stem.batch.run import Run, RunSettings
from comfyui_stem.batch.worker import WorkerSettings


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


def pool_settings(folder, machines, workers):
    said = []
    settings = RunSettings(WorkerSettings(str(folder), "", ""), workers)
    return Run(Results(folder), {}, [], settings, None, said.append)._pool_settings(machines, 100), said
