"""Where the latents of an inversion are kept."""

from __future__ import annotations

import gc
import os

import pytest
import torch
from comfyui_stem.nodes.methods.inversion import trajectory
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.inversion.trajectory import bytes_in_memory, new_trajectory

SHAPE = (4, 3, 4, 8, 8)


def test_an_inversion_kept_in_a_file_is_the_same_and_costs_no_memory(loaded, video):
    in_memory, in_file = (
        invert(loaded.model, loaded.prompt("a hill"), video, 2, "next", storage) for storage in ("memory", "file")
    )
    assert torch.equal(in_file.trajectory, in_memory.trajectory)
    assert in_file.get_ram_usage() == 0
    assert in_memory.get_ram_usage() == in_memory.trajectory.numel() * 4
    # for newer ComfyUI, which counts tensors and looks for MODELs itself
    assert [part is in_memory.trajectory for part in in_memory._comfy_cache_tensors()] == [True, False]
    assert in_file._comfy_cache_tensors() == in_file.get_models() == [in_file.model]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a file while it is mapped")
def test_no_file_is_left_even_while_it_is_used(tmp_path):
    kept = new_trajectory(SHAPE, "file", tmp_path / "temp")
    kept.fill_(2.5)
    assert list((tmp_path / "temp").iterdir()) == []
    assert kept.shape == SHAPE and kept.dtype == torch.float32
    assert float(kept.mean()) == 2.5


def test_where_a_mapped_file_cannot_be_deleted_it_goes_with_the_tensor(tmp_path, monkeypatch):
    tries = []
    original = trajectory._deleted
    monkeypatch.setattr(trajectory, "_deleted", lambda file: tries.append(file) or (len(tries) > 1 and original(file)))
    kept = new_trajectory(SHAPE, "file", tmp_path)
    view = kept[0]
    del kept
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1
    del view
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    def full(descriptor, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(ValueError, match=r"needs a file of 0\.00 GB .* is free .*No space left.*keep the trajectory"):
        new_trajectory(SHAPE, "file", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_way_to_reserve_a_file_it_is_written(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    kept = new_trajectory((3, 1, 4, 300, 400), "file", tmp_path)
    kept.fill_(1.0)
    assert float(kept.sum()) == kept.numel()


def test_memory_is_counted_where_it_is_taken(tmp_path):
    assert bytes_in_memory(new_trajectory(SHAPE, "memory", tmp_path)) == 4 * 3 * 4 * 8 * 8 * 4
    assert bytes_in_memory(new_trajectory(SHAPE, "file", tmp_path)) == 0


def test_a_folder_that_cannot_be_written_to_is_told_in_the_nodes_own_words(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"needs a file of .*Not a directory.*keep the trajectory in memory"):
        new_trajectory(SHAPE, "file", tmp_path / "file" / "temp")
