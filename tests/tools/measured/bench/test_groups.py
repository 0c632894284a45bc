"""What is measured is what it is called: counts of operations, and every group run once with a tiny model."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.stem_kernels.em import EMSettings, fit_bases
from comfyui_stem.tools import locations
from comfyui_stem.tools.host import loaded_model
from comfyui_stem.tools.measured import bench
from comfyui_stem.tools.measured.bench import kernels, report
from comfyui_stem.tools.measured.bench.em import FLOOR, flops, layer_shapes, moved, written_plainly
from comfyui_stem.tools.measured.bench.groups import MEASURES, Bench
from comfyui_stem.tools.measured.bench.results import VideoSize

# One takes long, and Triton's need its interpreter from the start of a process: `make gpu ARGS="--smoke"` runs them.
LEFT_OUT = ("sizes", "kernels", "backends")
GROUPS = [group for group in (*bench.GROUPS, *bench.GPU_GROUPS) if group not in LEFT_OUT]


@pytest.fixture(scope="module")
def rows():
    """Of every group, with the tiny checkpoint and two frames of 64x64 pixels."""
    loaded_model.prepare()
    tiny = str(locations.from_environment().checkpoint)
    options = bench.parse(["--checkpoint", tiny, *"--rounds 1 --frames 2 --height 64 --width 64".split()])
    with torch.inference_mode():
        here = Bench(options, cuda=False)
        return {group: list(MEASURES[group](here)) for group in GROUPS}


def test_the_layers_are_those_of_sd15():
    shapes = layer_shapes(VideoSize(4, 360, 640))
    assert shapes[0] == (4 * 45 * 80, 320)
    assert shapes[2] == (4 * 23 * 40, 640)
    assert shapes[4] == (4 * 12 * 20, 1280)
    assert shapes[6] == (4 * 6 * 10, 1280)
    assert len(shapes) == 16


def test_written_plainly_em_is_the_same_em():
    tokens = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    settings = EMSettings(temperature=0.3)
    expected = fit_bases(tokens, tokens[:12], settings).centres
    torch.testing.assert_close(written_plainly(tokens, tokens[:12], settings), expected, rtol=1e-4, atol=1e-5)


def test_operations_are_counted_as_the_products_have_them():
    assert flops(10, 3, 5, iterations=2) == 2 * (2 * 10 * 3 * 5 + 2 * 10 * 3 * 5)
    assert moved(10, 3, 5, item=2, iterations=1) == 10 * 3 * 2 + 4 * (5 * 3 + 5 * 3 + 5)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_runs_and_has_its_baseline(rows, group):
    names = [row["name"] for row in rows[group]]
    assert {row["baseline"] for row in rows[group]} <= set(names)
    assert all(row["seconds"] > 0 and row["group"] == group for row in rows[group])


def test_the_share_of_em_is_a_share(rows):
    shares = [row["em_share"] for row in rows["inversion"] if row["name"].startswith("STEM")]
    assert len(shares) == 3
    assert all(0 < share < 1 for share in shares)


def test_the_page_shows_every_row(rows):
    everything = [row for found in rows.values() for row in found]
    page = report.page(everything)
    for name in {row["name"] for row in everything} - {FLOOR, "Plug-and-play, frame by frame"}:
        assert f"{name}" in page
    assert page.count("Measured on: ") == len(GROUPS)


def test_a_kernel_that_fails_is_a_row_with_the_reason(monkeypatch):
    """Without its interpreter Triton has no device here, or without Triton there is nothing to import."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    found = list(kernels.rows(VideoSize(1, 64, 64), "cpu", rounds=1))
    assert len(found) == len(kernels.DTYPES) * len(kernels.cases(VideoSize(1, 64, 64)))
    assert all(row["failed"] for row in found)
    assert f"failed: {found[0]['failed'][:20]}" in report.page(found)


@pytest.mark.parametrize("group", ["kernels", "backends"])
def test_without_triton_its_groups_are_left_out_and_say_why(group, monkeypatch, capsys):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert list(MEASURES[group](Bench(bench.parse([]), cuda=False))) == []
    assert f"{group}: left out (" in capsys.readouterr().out


def test_every_preset_has_its_case_at_every_level():
    cases = kernels.cases(VideoSize(48, 360, 640))
    assert {(case.heads, case.tokens, case.channels) for case in cases} >= {
        (1, 48 * 45 * 80, 320),
        (1, 48 * 6 * 10, 1280),
        (8, 8 * 45 * 80, 40),
        (8, 8 * 6 * 10, 160),
    }
    alike = {"tokenflow": "paper_literal"}
    for name, settings in PRESETS.items():
        ours = [case for case in cases if case.name.startswith(f"{alike.get(name, name)}, level")]
        assert len(ours) == 4 and all(case.settings.em.temperature == settings.em.temperature for case in ours)
        assert all(case.settings.em.normalize_bases == settings.em.normalize_bases for case in ours)


def test_the_slope_of_memory_is_that_between_the_shortest_and_the_longest_clip(rows):
    def of_frames(frames, mb):
        return [row | {"frames": frames, "live_mb": mb} for row in rows["batches"][:1]]

    assert "| 10.0 MB |" in report.page([*of_frames(8, 100.0), *of_frames(16, 180.0)])


def test_machines_and_kinds_of_attention_share_a_heading(rows):
    assert all(row["attention"] for row in rows["inversion"])
    here = [row | {"attention": name} for name in ("pytorch", "sub_quad") for row in rows["inversion"]]
    page = report.page([*here, *map(replace_device, rows["inversion"])])
    assert page.count("## Inversion") == 1 and page.count("paper's Table 1 (48") == 3
    for machine in ("PyTorch's attention, 1 round", "by itself on a CPU, 1 round", "Some GPU, float32"):
        assert machine in page


def test_a_page_of_one_group_has_no_other(rows):
    page = report.page([replace_device(row) for row in rows["fatezero"]])
    assert "## FateZero" in page and "## TokenFlow" not in page and "Some GPU" in page


def test_rows_beside_the_official_code_say_whose_and_by_how_much():
    row = {
        "group": "official", "name": "TokenFlow, a step", "baseline": "official TokenFlow", "network": "full width",
        "frames": 8, "height": 192, "width": 192, "seconds": 17.4, "baseline_seconds": 25.04, "time_ratio": 0.6949,
        "ratio_low": 0.68, "ratio_high": 0.71, "peak_memory_mb": 700.2, "baseline_peak_memory_mb": 801.0, "rounds": 3,
        "live_mb": 263.4, "baseline_live_mb": 276.1,
        "device": "CPU (some)", "threads": 1, "torch": "2", "dtype": "float32",
    }  # fmt: skip
    page = report.page([row])
    line = "| TokenFlow, a step | full width, 8 × 192² | TokenFlow | 0.69 [0.68, 0.71] | 17.4 | 25.0 |"
    assert line + " 263 MB | 276 MB | 700 MB | 801 MB |" in page
    assert line + " – | – | 700 MB | 801 MB |" in report.page([row | {"live_mb": None}])


def replace_device(row):
    return row | {"device": "Some GPU", "threads": None}
