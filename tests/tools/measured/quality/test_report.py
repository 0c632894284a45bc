"""From results to rows, and the files of the report."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from comfyui_stem.tools.measured.quality import plots, report, summary
from comfyui_stem.tools.measured.quality.clips import held_out_cases
from comfyui_stem.tools.measured.quality.frames_on_disk import load_frames, save_frames
from comfyui_stem.tools.measured.quality.plan import CFG, STUDIES, Settings, items
from comfyui_stem.tools.measured.quality.store import Store
from comfyui_stem.tools.measured.quality.variants import BASELINE, CONVENTIONS, MAIN, others
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = Settings(frames=4, steps=2, checkpoint="c" * 64, classifier="", code="x")
RECONSTRUCTION = ("psnr_vs_vae", "ssim_vs_vae", "psnr_vs_source", "ssim_vs_source")
EDIT = ("psnr", "ssim", "psnr_inside", "psnr_outside", "warp_error", "warp_error_all", "consistency")
HEALTH = ("tokens", "bases", "live", "perplexity", "responsibility", "norm")


def invented(item, folder):
    """A result of the right form; a STEM inversion is exactly 2 better than the baseline, whatever the clip."""
    plus = 2.0 if item.variant and item.variant.inversion == "stem" else 0.0

    def one(editor, names, denoiser=None, cfg=None, edit=None, **more):
        metrics = {
            name: random.Random(f"{item.case.index} {editor} {cfg} {edit} {name}").uniform(10, 30) + plus
            for name in names
        }
        return {"editor": editor, "denoiser": denoiser, "cfg": cfg, "edit": edit, "metrics": metrics} | more

    kinds = [edit.kind for edit in item.case.edits]
    if item.kind == "health":
        return [{"health": {"layer": layer, "timestep": 1} | dict.fromkeys(HEALTH, 1.0)} for layer in range(2)]
    if item.kind == "reference":
        found = [one("vae", RECONSTRUCTION[2:])] + [one("no edit", EDIT, edit=kind) for kind in kinds]
        names = ["source", *(f"truth_{kind}" for kind in kinds)]
    else:
        plain = item.variant.plain
        found = [
            one("none", RECONSTRUCTION, denoiser, cfg, psnr_by_frame=[1.0, 2.0, 1.5, 3.0])
            for cfg in item.scales
            for denoiser in (("plain",) if plain else ("plain", "same"))
        ]
        found += [one(editor, EDIT, cfg=7.5, edit=kind) for kind in kinds for editor in item.editors]
        names = ["reconstruction_plain_1", *(f"{editor}_{kind}" for kind in kinds for editor in item.editors)]
    for name in names if item.shown else ():
        save_frames(folder / "frames" / f"{item.key(SETTINGS)}_{name}.png", torch.rand(4, 16, 16, 3))
    return found


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    cases, store = held_out_cases(4, edits=3), Store(folder)
    studies = {name: items(name, cases[: 2 if name == "grid" else 4], [0]) for name in STUDIES}
    for item in {item for work in studies.values() for item in work}:
        store.add(item.key(SETTINGS), {"measured": invented(item, folder), "seconds": 1.0})
    return studies, store


@pytest.fixture(scope="module")
def written(stored, tmp_path_factory):
    output = tmp_path_factory.mktemp("docs")
    report.write(stored[0], SETTINGS, stored[1], "model.safetensors", output)
    return output


def test_rows_name_what_they_are_about_and_have_intervals(written):
    made = json.loads((written / "quality.json").read_text())
    needed = {"inversion", "editor", "num_bases", "preset", "metric", "mean", "low", "high"}
    assert all(needed <= row.keys() and row["low"] <= row["mean"] <= row["high"] for row in made["rows"])
    groups = [tuple(row[key] for key in (*summary.GROUP, "metric")) for row in made["rows"]]
    assert len(set(groups)) == len(groups)
    assert {row["num_bases"] for row in made["grid_rows"]} == {None, 16, 32, 64, 128, 256}
    assert {row["clips"] for row in made["grid_rows"]} == {2}
    assert {row["clips"] for row in made["rows"] if row["edit"] in (None, "all")} == {4}


def test_gains_are_taken_clip_by_clip(written):
    """Clips differ by up to 20, gains not at all."""
    made = json.loads((written / "quality.json").read_text())
    assert {row["cfg"] for row in made["guided_rows"]} == {CFG}
    changes = [row for row in made["change_rows"] if row["change"]]
    assert changes and all(row["gain_low"] == row["gain_high"] == pytest.approx(0) for row in changes)
    gains = [row for row in made["rows"] if row["inversion"] == "stem" and row["editor"] in ("tokenflow", "fatezero")]
    assert {row["editor"] for row in gains} == {"tokenflow", "fatezero"}
    for row in gains:
        assert row["gain_low"] == pytest.approx(2) and row["gain_high"] == pytest.approx(2)
    assert not any("gain" in row for row in made["rows"] if row["context"] == BASELINE.context)


def test_edits_with_bases_are_measured_against_the_usual_edit_of_the_baseline(written):
    made = json.loads((written / "quality.json").read_text())
    of_base = {row["editor"]: row for row in made["stem_edit_rows"] if is_mean_psnr(row) and row["context"] == "0"}
    assert "gain" not in of_base["tokenflow"]
    expected = of_base["tokenflow_stem"]["mean"] - of_base["tokenflow"]["mean"]
    assert of_base["tokenflow_stem"]["gain"] == pytest.approx(expected) != 0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_edits_from_other_inversions_are_measured_against_the_baseline_of_their_own_runs(written, convention):
    rows = json.loads((written / "quality.json").read_text())[f"edit_rows_{convention}"]
    gains = [row for row in rows if is_mean_psnr(row) and row["editor"] == "tokenflow" and "gain" in row]
    assert len(gains) == len(others(convention))
    assert {row["convention"] for row in gains} == {convention}
    assert all(row["gain"] == pytest.approx(2.0 * (row["inversion"] == "stem")) for row in gains)
    section = (written / "quality.md").read_text().split(f"of the convention *{convention}*")[1].split("###")[0]
    assert all(f"| {variant.label} |" in section for variant in others(convention))


def is_mean_psnr(row):
    return row["metric"] == "psnr" and row["edit"] == "all"


def test_the_page_names_every_inversion_its_pictures_exist_and_it_says_that_words_were_not_judged(written):
    page = (written / "quality.md").read_text()
    assert all(f"| {variant.label} |" in page for variant in MAIN)
    assert "no classifier was given" in page
    shown = [part.split(")")[0] for part in page.split("](quality/")[1:]]
    assert len(shown) == 2 + 3 * (1 + 3)
    assert all((written / "quality" / name).is_file() for name in shown)


def test_an_unfinished_study_says_what_is_missing_and_counts_whole_clips_only(stored, tmp_path):
    work, results, part = stored[0]["grid"], stored[1].load(), Store(tmp_path / "part")
    for item in work[:-3]:
        part.add(item.key(SETTINGS), results[item.key(SETTINGS)])
    report.write({"grid": work}, SETTINGS, part, "model.safetensors", tmp_path / "docs")
    page = (tmp_path / "docs" / "quality.md").read_text()
    assert f"3 of {len(work)} runs are missing" in page
    assert "## Edits" not in page and "## Pictures" not in page
    made = json.loads((tmp_path / "docs" / "quality.json").read_text())
    assert made["studies"]["grid"]["missing_runs"] == 3
    assert {row["clips"] for row in made["grid_rows"]} == {made["studies"]["grid"]["clips"]} == {1}


def test_studies_that_were_not_run_keep_their_numbers(stored, written, tmp_path):
    shutil.copytree(written, tmp_path / "docs")
    before = json.loads((written / "quality.json").read_text())
    studies = {"guided": stored[0]["guided"][: len(MAIN)], "health": stored[0]["health"], "grid": stored[0]["grid"]}
    # a clip that is guided, none whose fits were watched, and one that went through a part of the grid
    part = Store(tmp_path / "part")
    for item in (*studies["guided"], *studies["grid"][:5]):
        part.add(item.key(SETTINGS), stored[1].load()[item.key(SETTINGS)])
    report.write(studies, SETTINGS, part, "model.safetensors", tmp_path / "docs")
    after = json.loads((tmp_path / "docs" / "quality.json").read_text())
    assert (before["studies"].pop("guided")["clips"], after["studies"].pop("guided")["clips"]) == (4, 1)
    assert before.pop("guided_rows") != after.pop("guided_rows")
    assert before == after


def test_the_report_is_the_same_every_time(stored, written, tmp_path):
    report.write(stored[0], SETTINGS, stored[1], "model.safetensors", tmp_path)
    for name in ("quality.json", "quality.md"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_pictures_of_frames_that_were_kept_elsewhere_stay(stored, written, tmp_path):
    studies, store = stored
    elsewhere = Store(tmp_path / "elsewhere")
    for key, result in store.load().items():
        elsewhere.add(key, result)
    shutil.copytree(written, tmp_path / "docs")
    (tmp_path / "docs" / "quality" / "clip0_object.jpg").unlink()
    report.write(studies, SETTINGS, elsewhere, "model.safetensors", tmp_path / "docs")
    for file in (written / "quality").iterdir():
        again = tmp_path / "docs" / "quality" / file.name
        assert file.name == "clip0_object.jpg" or again.read_bytes() == file.read_bytes()
    assert "clip0_object.jpg" in (written / "quality.md").read_text()
    assert "clip0_object.jpg" not in (tmp_path / "docs" / "quality.md").read_text()


def test_kept_frames_come_back(tmp_path):
    video = (torch.arange(3 * 4 * 5 * 3) % 256).view(3, 4, 5, 3) / 255
    save_frames(tmp_path / "a.png", video)
    assert (load_frames(tmp_path / "a.png", 3) == (video * 255).round().numpy()).all()


@given(st.floats(-1000, 1000), st.floats(0, 1000))
def test_ticks_enclose_the_values_and_are_few(low, span):
    ticks = plots.nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 and ticks[-1] >= low + span - 1e-6
    assert 2 <= len(ticks) <= 8
