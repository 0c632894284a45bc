"""The Triton kernels, run by Triton's interpreter on the CPU, or on the GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no build for this system; its kernels are not used here either")
PROGRAM = Path(__file__).with_name("triton_program.py")


def run(*checks, interpreted):
    """The names of the checks that passed, and what was printed of the others."""
    # The interpreter is chosen when Triton is imported, for a whole process.
    variables = {"TRITON_INTERPRET": "1" if interpreted else "0"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *checks], env=os.environ | variables, capture_output=True, text=True
    )
    return done.stdout.split(), done.stderr[-2000:]


@pytest.fixture(scope="module")
def passed():
    return run("sums", "strides", "chunks", "fit", "ties", interpreted=not torch.cuda.is_available())


@pytest.mark.parametrize(
    "check",
    [
        pytest.param("sums", id="masses and means equal those in float64"),
        pytest.param("strides", id="slices of larger tensors are read in place"),
        pytest.param("chunks", id="chunks and splits of the tokens change nothing"),
        pytest.param("fit", id="a whole fit equals that of the eager backend"),
        pytest.param("ties", id="bases that one token makes are equal, whatever their share of it"),
    ],
)
def test_the_kernels_compute_what_plain_pytorch_does(passed, check):
    names, errors = passed
    assert check in names, errors


def test_the_kernels_compile_for_nvidia_gpus_and_fit_into_their_shared_memory():
    # needs the compiler alone, no GPU
    names, errors = run("compiled", interpreted=False)
    assert names == ["compiled"], errors
