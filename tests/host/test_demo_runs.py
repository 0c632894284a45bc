"""The demo from end to end, on two frames and two steps."""

from __future__ import annotations

import json

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

    shorter = {("Video Load", "frame_cap"): 2, ("STEM Inversion", "steps"): 2}
    monkeypatch.setattr(demo, "SMALL", workflow.SMALL | shorter)
    monkeypatch.setattr(locations, "TRAINED", tmp_path / "none.safetensors")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "output")
    monkeypatch.setattr(demo, "HostProcess", Noted)
    status = demo.main([])
    printed = capsys.readouterr().out
    assert status == 0, printed

    assert {file.name for file in demo.OUTPUT.iterdir()} == {*pictures.names(["edit"]), "report.json", "host.log"}
    made = json.loads((demo.OUTPUT / "report.json").read_text())
    assert (made["frames"], made["width"], made["height"], made["steps"]) == (2, 224, 128, 2)
    assert made["checkpoint"] == locations.from_environment().checkpoint.name
    assert all(made["seconds"][stage] > 0 for stage in ("setup", "inversion", "reconstruction", "edit"))
    assert made["seconds"]["total"] >= sum(made["seconds"].values()) - made["seconds"]["total"]
    assert made["peak_memory_mb"] > 100
    # two steps are few, but the reconstruction must be of this clip
    assert made["psnr_vs_vae"] > 20
    assert "TokenFlow Edit" in printed and "report.json" in printed
    (host,) = hosts
    assert host.process.poll() is not None
    assert not host.base.exists()
