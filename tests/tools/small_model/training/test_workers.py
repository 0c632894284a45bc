import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_stem.tools.small_model.training import workers

PROGRAM = Path(__file__).with_name("worker_program.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*start, str(PROGRAM), str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_workers_draw_different_examples_and_end_with_the_same_weights(results):
    assert results[0]["first"] != results[1]["first"]
    assert torch.equal(results[0]["weight"], results[1]["weight"])


def test_together_they_find_the_minimum(results):
    torch.testing.assert_close(results[0]["weight"], torch.tensor([[1.0, -2.0, 0.5]]), atol=0.05, rtol=0)


def test_a_sum_is_that_of_all_workers(results):
    assert [float(result["total"]) for result in results] == [3.0, 3.0]


def test_a_process_that_was_started_alone_is_the_only_worker(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    workers.join()
    assert (workers.rank(), workers.count()) == (0, 1)
    alone = torch.tensor([2.0])
    workers.sum_in_place(alone)
    assert float(alone) == 2.0
