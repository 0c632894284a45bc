"""The page and its tables, from reports that were made up."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from comfyui_stem.batch.results import Results
from comfyui_stem.tools.demo.pictures import write_mp4
from comfyui_stem.tools.measured.evaluate import numbers, page, tables
from comfyui_stem.tools.measured.evaluate.clips import Edit
from comfyui_stem.tools.measured.evaluate.example import RATE
from comfyui_stem.tools.measured.evaluate.methods import BASES, CONTEXT, INVERSION, METHODS, ONE_FRAME, groups
from comfyui_stem.tools.measured.evaluate.videos import target_word_share
from comfyui_stem.tools.measured.evaluate.workflows import EDIT, FUSED, OWN, PLAIN, VAE, Settings, shown

STEPS = 50
EDITS = [Edit(f"e{n}", f"/clips/{n // 2}.mp4", "a dog", f"a cat {n}", "object", "row") for n in range(4)]
SECONDS = {"2-frames": 2.8, "all-frames": 12.6, "8": 4.0, "4": 3.0}


def measured(**values):
    """As Video Metrics says it; each value for two frames that differ by 2."""
    measures = {name: {"value": value, "frames": [value - 1, value + 1]} for name, value in values.items()}
    return [json.dumps({"measures": measures, "models": {"flow": "DIS (OpenCV)"}})]


def texts(group, job):
    """Warp errors of STEM are 1 below those of DDIM, whatever the edit; reconstructions by K better by K / 10."""
    number, bases = int(job.values["target"][-1]), job.values.get("STEM Bases.num_bases", 0)
    warp = 5 + number - (1 if group.name.startswith("stem") else 0)
    found = {EDIT: {"warp_error": warp, "warp_error_all": 2 * warp, "source_warp_error": 0.5, "clip_score": 0.3}}
    found |= {what: {"psnr": 20 + bases / 10 + add, "ssim": 0.9} for what, add in ((PLAIN, 0), (OWN, 2), (FUSED, 3))}
    found[VAE] = {"psnr": 40, "ssim": 0.99}
    return {shown(what): measured(**values) for what, values in found.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of finished runs on two clips with two edits each, of which one edit of one method has failed."""
    folder = tmp_path_factory.mktemp("finished")
    write_mp4(folder / "clip.mp4", np.full((2, 32, 32, 3), 90, np.uint8), RATE)
    settings = Settings("sd15.safetensors", 512, 512, 24, STEPS)
    for group in groups([INVERSION, *METHODS], EDITS, settings, (8, 4), timed=3):
        results = Results(group.folder(folder))
        (folder / group.name).mkdir(exist_ok=True)
        results.keep_jobs(group.jobs)
        results.keep_run({"graph": group.workflow, "made_with": {"comfyui": "0.0", "pack": "abc", "models": {}}})
        for job in group.jobs:
            if job.id == "e3" and group.name == "ddim-tokenflow":
                results.fail(job.id, {"id": "e3", "reason": "out of | luck"})
                continue
            clip = int(job.video[-5])
            pace = SECONDS.get(job.id.rpartition(".")[2].removeprefix("k"), 2.0) * (1 + clip)
            report = {
                "machine": "here",
                "texts": texts(group, job) if group.name in METHODS else {},
                "seconds_per_step": {"VAE Decode": 9, "STEM Inversion" if "k" in job.id else "DDIM Inversion": pace},
                "peak_memory_mb": 1000.0,
            }
            files = {name: folder / name for name in ("source.mp4", "edited.mp4")}
            for file in files.values():
                shutil.copyfile(folder / "clip.mp4", file)
            results.commit(job.id, files, report)
    return folder


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def cells(table):
    """By the first cell of a row, the others."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def test_times_are_those_of_all_steps_and_ratios_go_clip_by_clip(out):
    found = cells(tables.inversions(numbers.read(out), STEPS))
    assert list(found) == ["DDIM, 1 frame", "DDIM, 2 frames", "DDIM, all frames", "STEM, K = 4", "STEM, K = 8"]
    assert found["DDIM, 1 frame"] == ["150.0 [100.0, 200.0]", "1.00", "1.00", "1000"]
    assert [row[1] for row in found.values()] == ["1.00", "1.40", "6.30", "1.50", "2.00"]
    assert [row[2] for row in found.values()] == ["1.00", "1.40", "6.30", tables.NOTHING, tables.NOTHING]


def test_memory_of_a_gpu_has_its_column_where_there_is_one(out):
    made = numbers.read(out)
    made.of(BASES, 4)[0].report["device_memory_mb"] = 5000.0
    found = cells(tables.inversions(made, STEPS))
    assert found["STEM, K = 4"][-1] == "5000" and found["DDIM, 1 frame"][-1] == tables.NOTHING


def test_differences_are_those_of_the_same_edits_though_one_has_failed(out):
    made = numbers.read(out)
    found = cells(tables.edits(made, None))
    # without e3 the second clip of TokenFlow has one edit; STEM-TokenFlow is that of the first number of bases
    assert found["TokenFlow"][1].startswith("6.25") and found["STEM-TokenFlow"][1].startswith("5.50")
    assert found["TokenFlow"][3:] == ["0.31", "4.9"]
    assert found["*the source itself*"][1] == "0.50"
    gains = cells(tables.edit_gains(made, None))
    assert gains["STEM-TokenFlow - TokenFlow"] == ["+0.000", "-1.00", "-2.00"]
    assert gains["STEM-FateZero - FateZero"][1] == "-1.00"


def test_reconstructions_are_compared_with_the_plain_one_of_ddim(out):
    found = tables.reconstructions(numbers.read(out)).splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found]
    gains = {(row[0], row[1]): row[4] for row in rows}
    plain, own, fused = tables.DENOISERS.values()
    assert gains["DDIM, 1 frame", plain] == tables.NOTHING
    assert gains["STEM for TokenFlow", plain] == "+0.80" and gains["STEM for TokenFlow", own] == "+2.80"
    assert gains["DDIM, 2 frames", fused] == "+3.00"
    assert rows[0][2] == "40.00"


def test_the_table_of_bases_has_each_number_of_them(out):
    found = cells(tables.bases(numbers.read(out), None))
    assert list(found) == ["4", "8"]
    assert [row[0] for row in found.values()] == ["20.40", "20.80"]


def test_curves_go_as_far_as_the_shortest_clip(out):
    made = numbers.read(out)
    runs = made.edits("ddim-tokenflow")
    assert numbers.curve(runs, PLAIN, "psnr") == [19, 21]
    short = json.dumps({"measures": {"psnr": {"value": 9, "frames": [9]}}, "models": {}})
    shorter = replace(runs[0], report={"texts": {shown(PLAIN): [short]}})
    assert numbers.curve([shorter, *runs[2:]], PLAIN, "psnr") == [(9 + 19) / 2]


def test_the_page_has_every_part_and_says_what_is_missing(out):
    text = page.write(out).read_text()
    for part in ("Table 1", "Table 2", "Fig. 4", "Fig. 3", "Pictures"):
        assert part in text
    assert "on 2 clips (512x512, up to 24 frames), 4 edits, 50 steps" in text
    assert r"* ddim-tokenflow: 0 open, 1 failed:" in text and r"e3: out of \| luck" in text
    assert "CLIP score was not measured" not in text and "Target word" not in text
    assert {file.name for file in out.glob("*.png")} == {"psnr.png", "ssim.png"}
    assert len(list(out.glob("edit*.jpg"))) == page.SHOWN
    assert all(f"]({file.name})" in text for file in [*out.glob("*.png"), *out.glob("edit*.jpg")])


@pytest.mark.parametrize("left", [[ONE_FRAME, CONTEXT, BASES], ["stem-fatezero"], ["ddim-tokenflow", "stem-tokenflow"]])
def test_a_page_can_be_made_of_any_methods(out, left):
    for folder in out.iterdir():
        if folder.is_dir() and folder.name not in left:
            folder.rename(out / f".{folder.name}")
    text = page.write(out).read_text()
    assert ("Table 1" in text) == (BASES in left) and ("Table 2" in text) == (BASES not in left)
    assert ("What STEM adds" in text) == (len(left) == 2)


def test_without_results_there_is_no_page(tmp_path):
    assert page.write(tmp_path) is None


def test_a_missing_clip_score_is_told_with_how_to_get_it(out):
    for report in out.glob("*/clips/*/*/report.json"):
        report.write_text(report.read_text().replace("clip_score", "other"))
    assert "CLIP_VISION=" in page.write(out).read_text()


def test_the_share_of_frames_that_show_the_new_word_is_counted(tmp_path):
    write_mp4(tmp_path / "clip.mp4", np.zeros((4, 32, 32, 3), np.uint8), RATE)

    def classify(frames):
        assert frames.shape == (4, 32, 32, 3)
        return {"object": ["cat", "cat", "car", "cat"], "style": ["flat"] * 4, "colour": ["red"] * 4}

    assert target_word_share(classify, tmp_path / "clip.mp4", ["cat"]) == 0.75
    assert target_word_share(classify, tmp_path / "clip.mp4", ["cat", "blue"]) == 0
    assert target_word_share(classify, tmp_path / "clip.mp4", ["lion"]) is None
