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


def run(*arguments, interpreted=None):
    # The interpreter is chosen when Triton is imported, for a whole process.
    if interpreted is None:
        interpreted = not torch.cuda.is_available()
    variables = {"TRITON_INTERPRET": "1" if interpreted else "0"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_masses_and_sums_equal_those_in_float64():
    run("sums", "float32", "float16", "bfloat16")


def test_slices_of_larger_tensors_are_read_in_place():
    run("strides")


def test_chunks_and_splits_of_the_tokens_change_nothing():
    run("chunks")


def test_a_whole_fit_equals_that_of_the_eager_backend():
    run("fit")


def test_the_kernels_compile_for_nvidia_gpus_and_fit_into_their_shared_memory():
    # needs the compiler alone, no GPU
    run("compiled", "80", "86", "90", interpreted=False)
