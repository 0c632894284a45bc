"""`make gpu`: what fits into the minutes, what is kept of a run that is cut off, the table."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from comfyui_stem.tools.measured import bench, gpu
from comfyui_stem.tools.measured.bench.results import KeptRows, load, machine
from comfyui_stem.tools.measured.gpu import summary

ROW = {"name": "one", "baseline": "one", "seconds": 1.0, "time_ratio": 1.0, "peak_memory_mb": 3.0, "frames": 2}


class Stand(gpu.Part):
    """A part whose process writes a row of its group and then does what it is told to."""

    def command(self, output: Path, smoke: bool) -> list[str]:
        row = json.dumps(ROW | {"group": self.groups[0], **machine()})
        text = json.dumps(f'{{"rows": [{row}]}}')
        code = f"import sys, time; open({str(output / 'benchmarks.json')!r}, 'w').write({text}); {self.options[0]}"
        return [sys.executable, "-c", code]


def session(folder, seconds=60.0):
    (folder / "log").write_text("")
    return gpu.Session(folder, folder / "log", time.monotonic() + seconds)


def test_a_part_that_may_not_fit_is_left_out_and_said(tmp_path, capsys):
    now = session(tmp_path, seconds=60)
    assert now.run(Stand(("em",), 61, ("pass",)))
    assert "em: left out, it may take 61 s and 60 s are left" in capsys.readouterr().out
    assert not (tmp_path / "benchmarks.json").exists()
    assert now.run(Stand(("em",), 40, ("pass",)))
    assert "s, 1 rows\n" in capsys.readouterr().out
    # what an earlier run has found does not count
    (tmp_path / "log").write_text("µ" * 10, encoding="utf-8")
    assert now.run(Stand(("em",), 40, ("print('left out, I say')",)))
    assert capsys.readouterr().out.endswith("s, 0 rows\n    left out, I say\n")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("time.sleep(60)", "1 rows, stopped"),
        ("sys.exit('the card is gone')", "1 rows, failed (status 1)\n    the card is gone"),
    ],
)
def test_a_part_that_hangs_or_fails_leaves_its_rows_and_the_next_one_runs(tmp_path, capsys, code, said):
    now = session(tmp_path)
    started = time.monotonic()
    # stopped after gpu.PATIENCE times as long
    assert not now.run(Stand(("inversion",), 2.5, (code,)))
    assert time.monotonic() - started < 30
    assert said in capsys.readouterr().out
    assert [row["group"] for row in load(tmp_path / "benchmarks.json")] == ["inversion"]
    assert now.run(Stand(("em",), 10, ("pass",)))


def test_every_part_asks_the_benchmarks_for_what_they_know():
    for part in gpu.PARTS:
        arguments = part.command(Path("folder"), smoke=False)
        options = bench.parse(arguments[arguments.index("--only") :])
        assert tuple(options.only) == part.groups
    assert sum(part.seconds for part in gpu.PARTS) <= 8 * 60


def test_rows_are_in_the_file_as_soon_as_they_are_there(tmp_path):
    file = tmp_path / "b.json"
    kept = KeptRows(file)

    def measured():
        for rounds in (1, 2):
            for name in "ab":
                yield {"group": "em", "device": "cpu", "name": name, "rounds": rounds}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for number, row in enumerate(measured(), start=1):
            kept.add(row)
            assert len(load(file)) == min(number, 2)
    # the second round has replaced the first
    assert [(row["name"], row["rounds"]) for row in load(file)] == [("a", 2), ("b", 2)]


def test_the_table_fits_a_terminal_and_says_what_it_leaves_out():
    rows = [ROW | {"group": "inversion", "name": f"way {number}"} for number in range(60)]
    lines = summary.lines(rows)
    assert len(lines) == summary.MOST_LINES
    assert lines[-1] == "... and 22 more lines in the file"
    assert "way 0" in lines[1]


def test_the_kernels_share_a_line_for_each_type_with_the_worst_of_them():
    def row(dtype, name, **more):
        return ROW | {"group": "kernels", "dtype": dtype, "name": name, "baseline": "eager"} | more

    rows = [
        row("float16", "eager", relative_error=0.5),
        row("float16", "triton", relative_error=1e-6, time_ratio=0.4),
        row("float16", "triton", relative_error=3e-6, time_ratio=0.6),
        {"group": "kernels", "dtype": "float32", "name": "triton", "frames": 2, "failed": "OutOfResources()"},
    ]
    (half, single) = summary.lines(rows)[1:]
    assert "0.60" in half and half.endswith("2 cases, worst error 3.0e-06")
    assert single.endswith("no case ran; 1 failed: OutOfResources()")


def test_without_a_gpu_it_says_what_to_run_instead(capsys, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert gpu.main(["--output", str(tmp_path)]) == 1
    assert "make bench" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
