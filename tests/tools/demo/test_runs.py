"""The demo from end to end, on a few frames and steps."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from comfyui_stem.tools import demo, locations
from comfyui_stem.tools.demo import pictures, workflow

pytestmark = pytest.mark.host


def test_the_demo_writes_what_it_promises_and_stops_its_host(tmp_path, monkeypatch, capsys):
    hosts = []

    class Noted(demo.HostProcess):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            hosts.append(self)

    monkeypatch.setattr(demo, "SMALL_MODEL", replace(workflow.SMALL_MODEL, frames=2, steps=3))
    monkeypatch.setattr(demo.example, "FRAMES", 2)
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "output")
    monkeypatch.setattr(demo, "HostProcess", Noted)
    status = demo.main(["--all=1"])
    printed = capsys.readouterr().out
    assert status == 0, printed

    assert {file.name for file in demo.OUTPUT.iterdir()} == {
        *pictures.names([wish.label for wish in demo.example.WISHES]),
        "source.mp4",
        "report.json",
        "host.log",
    }
    made = json.loads((demo.OUTPUT / "report.json").read_text())
    assert (made["frames"], made["width"], made["height"], made["steps"]) == (2, 128, 128, 3)
    assert made["checkpoint"] == locations.TRAINED.name
    assert list(made["edits"]) == [wish.label for wish in demo.example.WISHES]
    assert all(made["seconds"][stage] > 0 for stage in ("setup", "inversion", "reconstruction", "edit"))
    assert made["seconds"]["total"] >= sum(made["seconds"].values()) - made["seconds"]["total"]
    assert made["peak_memory_mb"] > 100
    # three steps are few, but the reconstruction must be of this clip
    assert made["psnr_vs_vae"] > 20
    assert "TokenFlow Edit" in printed and "report.json" in printed
    (host,) = hosts
    assert host.process.poll() is not None
    assert not host.base.exists()
