"""The demo's progress, videos, picture and report."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from comfyui_stem.batch.comfyui.events import Event
from comfyui_stem.batch.comfyui.memory import Memory
from comfyui_stem.tools.demo import pictures, report
from comfyui_stem.tools.demo.progress import ProgressLines
from comfyui_stem.tools.demo.workflow import EDIT, RECONSTRUCTION, ROUND_TRIP, SOURCE, Choices, DemoError
from PIL import Image

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def flat(colour, frames=6, height=72, width=128):
    return np.broadcast_to(np.array(colour, np.uint8), (frames, height, width, 3)).copy()


@pytest.fixture
def frames():
    return {SOURCE: flat(RED), ROUND_TRIP: flat(RED), RECONSTRUCTION: flat(GREEN), EDIT: flat(BLUE)}


def decoded(file):
    with av.open(str(file)) as container:
        rate = container.streams.video[0].average_rate
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def test_the_videos_have_every_frame_at_the_given_rate_and_hardly_lose_anything(frames, tmp_path):
    pictures.write_all(tmp_path, frames, [EDIT], Fraction(25, 2))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(pictures.names([EDIT]))
    for name, colour in (("edited.mp4", BLUE), ("reconstruction.mp4", GREEN)):
        video, rate = decoded(tmp_path / name)
        assert video.shape == (6, 72, 128, 3)
        assert rate == Fraction(25, 2)
        assert np.abs(video.astype(int) - np.array(colour)).max() <= 4


def test_the_comparison_shows_source_reconstruction_and_edit_in_this_order_below_their_names(frames, tmp_path):
    pictures.write_all(tmp_path, frames, [EDIT], Fraction(25))
    sheet = np.asarray(Image.open(tmp_path / "side_by_side.png"))
    # twice the size, so that a column is wide enough for its name; four rows
    assert sheet.shape == (pictures.LABEL_HEIGHT + 4 * 144, 3 * 256, 3)
    middle = pictures.LABEL_HEIGHT + 72
    assert [tuple(sheet[middle, x]) for x in (128, 384, 640)] == [RED, GREEN, BLUE]
    for column in range(3):
        label = sheet[: pictures.LABEL_HEIGHT, 256 * column : 256 * (column + 1)]
        assert label.min() < 100 and label.max() == 255


def test_every_edit_has_a_file_and_a_column(frames, tmp_path):
    frames |= {"object: car": frames.pop(EDIT), "style: sketch": flat((9, 9, 9))}
    edits = ["object: car", "style: sketch"]
    pictures.write_all(tmp_path, frames, edits, Fraction(25))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(pictures.names(edits))
    assert np.abs(decoded(tmp_path / "edited_car.mp4")[0].astype(int) - np.array(BLUE)).max() <= 4
    sheet = np.asarray(Image.open(tmp_path / "side_by_side.png"))
    middle = pictures.LABEL_HEIGHT + 72
    assert [tuple(sheet[middle, x]) for x in (128, 384, 640, 896)] == [RED, GREEN, BLUE, (9, 9, 9)]


def test_a_clip_shorter_than_the_sheet_has_a_row_for_each_frame(frames, tmp_path):
    pictures.write_all(tmp_path, {name: video[:2] for name, video in frames.items()}, [EDIT], Fraction(25))
    assert Image.open(tmp_path / "side_by_side.png").height == pictures.LABEL_HEIGHT + 2 * 144


def test_odd_sizes_can_be_encoded(tmp_path):
    pictures.write_mp4(tmp_path / "odd.mp4", flat(RED, 2, 35, 33), Fraction(5))
    assert decoded(tmp_path / "odd.mp4")[0].shape == (2, 34, 32, 3)


def test_videos_of_different_lengths_are_refused(frames, tmp_path):
    frames[EDIT] = frames[EDIT][:3]
    with pytest.raises(DemoError, match="different shapes"):
        pictures.write_all(tmp_path, frames, [EDIT], Fraction(25))


def test_png_files_are_read_without_loss():
    video = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 3), dtype=np.uint8)
    files = []
    for frame in video:
        Image.fromarray(frame).save(buffer := io.BytesIO(), "PNG")
        files.append(buffer.getvalue())
    assert (pictures.decode(files) == video).all()


class StoppedHost:
    """A host that used a little more memory than it does now."""

    command = ("python", "main.py", "--cpu")

    def peak_memory_mb(self):
        return 1234.56


def make_report(frames):
    choices = Choices(Path("clips/cat.mp4"), Path("models/tiny.safetensors"))
    seconds = {"setup": 1.234, "inversion": 2.0, "reconstruction": 3.0, "edit": 4.0, "total": 11.0}
    return report.make(choices, 10, frames, seconds, "cpu", Memory(StoppedHost()))


def test_the_report_has_the_documented_keys_and_is_plain_json(frames):
    made = make_report(frames)
    read = json.loads(json.dumps(made), parse_constant=pytest.fail)
    assert read == made
    assert (read["frames"], read["width"], read["height"], read["steps"]) == (6, 128, 72, 10)
    assert (read["checkpoint"], read["device"], read["peak_memory_mb"]) == ("tiny.safetensors", "cpu", 1234.6)
    assert list(read["seconds"]) == ["setup", "inversion", "reconstruction", "edit", "total"]


def test_the_report_compares_edits_with_the_truth_where_it_is_known(frames):
    choices = Choices(Path("clips/cat.mp4"), Path("models/tiny.safetensors"))
    frames[EDIT], frames[ROUND_TRIP] = flat((100, 100, 100)), flat((0, 0, 0))
    truths = {EDIT: flat((151, 151, 151))}
    made = report.make(choices, 10, frames, {"edit": 1.0}, "cpu", Memory(StoppedHost()), truths)
    assert made["edits"][EDIT]["psnr_vs_truth"] == pytest.approx(20 * np.log10(5), abs=0.01)
    assert made["edits"][EDIT]["psnr_of_no_edit"] == pytest.approx(20 * np.log10(255 / 151), abs=0.01)
    assert "14.0 dB" in report.as_text(made) and "against the true edit" in report.as_text(made)
    assert "edits" not in make_report(frames)


def test_the_report_compares_the_reconstruction_with_the_source_and_with_the_round_trip(frames):
    frames[SOURCE] = flat((100, 100, 100))
    frames[RECONSTRUCTION] = flat((151, 151, 151))
    frames[ROUND_TRIP] = flat((151, 151, 151))
    made = make_report(frames)
    assert made["psnr_vs_source"] == pytest.approx(20 * np.log10(5), abs=0.01)
    assert made["psnr_vs_vae"] == 100
    assert made["ssim_vs_vae"] == 1
    assert 0.5 < made["ssim_vs_source"] < 1
    assert "14.0 dB" in report.as_text(made) and "100.0 dB" in report.as_text(made)


RUN = [
    Event("started", "1", "Load Checkpoint"),
    Event("finished", "1", "Load Checkpoint", seconds=0.5),
    Event("started", "2", "STEM Inversion"),
    *[Event("progress", "2", "STEM Inversion", value, 40) for value in range(1, 41)],
    Event("finished", "2", "STEM Inversion", seconds=12.34),
]


def shown(out):
    lines = ProgressLines(out)
    for event in RUN:
        lines(event)
    lines.close()
    return out.getvalue()


def test_without_a_terminal_progress_is_a_line_a_quarter():
    lines = shown(io.StringIO()).splitlines()
    assert [line.split() for line in lines] == [
        ["Load", "Checkpoint", "0.5", "s"],
        ["STEM", "Inversion", "25", "%"],
        ["STEM", "Inversion", "50", "%"],
        ["STEM", "Inversion", "75", "%"],
        ["STEM", "Inversion", "12.3", "s"],
    ]


def test_in_a_terminal_each_node_has_a_bar_that_ends_full():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines = [line.split("\r")[-1] for line in shown(Terminal()).strip().split("\n")]
    assert len(lines) == 2
    assert all("100 %" in line for line in lines)
    assert lines[1].startswith("STEM Inversion")
