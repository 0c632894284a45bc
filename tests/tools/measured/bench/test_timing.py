"""Workloads interleaved, their time and memory, and the rows made of them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from comfyui_stem.tools.measured.bench.results import VideoSize, load, merged, rows_of, save
from comfyui_stem.tools.measured.bench.timing import Measured, Workload, interleaved, time_and_memory

SIZE = VideoSize(4, 64, 96)


def test_workloads_are_interleaved_and_a_warm_up_does_not_count():
    calls = []
    workloads = [Workload(name, lambda name=name: calls.append(name)) for name in "ab"]
    found = interleaved(workloads, rounds=2, warm_up=True)
    assert calls == ["a", "b"] * 3
    assert [len(found[name].seconds) for name in "ab"] == [2, 2]


def test_seconds_and_bytes_are_those_of_the_run():
    def run():
        block = np.ones(40_000_000, np.uint8)
        time.sleep(0.5)
        return block.sum()

    seconds, peak = time_and_memory(run)
    assert seconds >= 0.5
    assert 35e6 < peak < 80e6


def test_ratios_are_taken_within_a_round():
    # the second round was twice as slow for both
    slow, base = Measured([2.0, 4.0, 3.0]), Measured([1.0, 2.0, 1.0])
    assert slow.ratios(base) == [2.0, 2.0, 3.0]


def test_a_row_says_what_was_measured_on_what():
    workloads = [Workload("base", print), Workload("ours", print, 256, {"steps": 3})]
    found = {"base": Measured([1.0, 2.0], 5_000_000), "ours": Measured([0.5, 1.5], 7_000_000)}
    base, ours = rows_of("inversion", SIZE, workloads, found, "base", "float32")
    assert base["time_ratio"] == 1
    assert (ours["name"], ours["num_bases"], ours["steps"], ours["rounds"]) == ("ours", 256, 3, 2)
    assert (ours["frames"], ours["height"], ours["width"], ours["dtype"]) == (4, 64, 96, "float32")
    assert (ours["ratio_low"], ours["ratio_high"], ours["peak_memory_mb"]) == (0.5, 0.75, 7.0)
    assert {"device", "torch", "threads", "seconds", "baseline"} <= ours.keys()


def test_rows_are_kept_and_a_group_that_is_measured_again_takes_the_place_of_the_old(tmp_path):
    def row(group, device, name, **more):
        return {"group": group, "device": device, "name": name} | more

    old = [row("em", "cpu", "old"), row("em", "gpu", "kept"), row("tokenflow", "cpu", "kept")]
    old.append(row("em", "cpu", "kept", attention="another"))
    save(merged(old, [row("em", "cpu", "new")]), tmp_path / "b.json")
    assert [r["name"] for r in load(tmp_path / "b.json")] == ["kept", "kept", "kept", "new"]
    assert load(tmp_path / "none.json") == []


def test_a_run_that_fails_does_not_leave_the_memory_watched():
    import threading

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        time_and_memory(lambda: 1 / 0)
    assert threading.active_count() == before
