"""Files are those of safetensors, written so that ComfyUI's user can stop it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import comfy.model_management
import comfy.utils
import pytest
import torch
from comfyui_stem.nodes.methods.inversion import writing
from comfyui_stem.nodes.methods.inversion.writing import TYPES, write_tensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

TENSORS = st.builds(
    lambda shape, dtype: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(list(TYPES)),
)


@given(st.dictionaries(st.text(max_size=4), TENSORS, min_size=1), st.dictionaries(st.text(), st.text(), max_size=1))
def test_every_byte_is_as_safetensors_writes_it(tensors, metadata):
    tensors.pop("__metadata__", None)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        write_tensors(tensors, ours, metadata)
        save_file(tensors, theirs, metadata=metadata)
        assert ours.read_bytes() == theirs.read_bytes()


def test_every_piece_is_progress_and_the_last_place_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_PIECE", 100)
    updates = []
    monkeypatch.setattr(comfy.utils.ProgressBar, "update", lambda bar, value: updates.append((value, bar.total)))
    tensors = {"trajectory": torch.ones(60), "embedding": torch.ones(5, dtype=torch.float16)}
    write_tensors(tensors, tmp_path / "whole", {})
    assert updates == [(100, 250), (100, 250), (40, 250), (10, 250)]

    def stop(bar, value):
        comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils.ProgressBar, "update", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        write_tensors(tensors, tmp_path / "half", {})
    assert (tmp_path / "half").stat().st_size == (tmp_path / "whole").stat().st_size - 150
