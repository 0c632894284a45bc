"""The Triton kernels, run by Triton's interpreter on the CPU, or on the GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no build for this system; its kernels are not used here either")
PROGRAM = Path(__file__).with_name("triton_program.py")


def run(*arguments):
    # The interpreter is chosen when Triton is imported, for a whole process.
    import torch

    variables = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masses_and_sums_equal_those_in_float64(dtype):
    run("sums", dtype)


def test_slices_of_larger_tensors_are_read_in_place():
    run("strides")


def test_chunks_and_splits_of_the_tokens_change_nothing():
    run("chunks")


def test_a_whole_fit_equals_that_of_the_eager_backend():
    run("fit")
