"""Rows of keyframes come back as they were, wherever they lay, and no more of them than asked for."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.methods.tokenflow import keyframe_store
from comfyui_stem.nodes.methods.tokenflow.keyframe_store import KeyframeStore

BYTES = 3 * 4 * 5 * 2  # of three keyframes


@pytest.fixture
def moved(monkeypatch):
    """Bytes of what went to host memory."""
    found, move = [], keyframe_store._in_host_memory
    monkeypatch.setattr(keyframe_store, "_in_host_memory", lambda rows: found.append(rows.nbytes) or move(rows))
    return found


def kept(room):
    store = KeyframeStore(torch.device("cpu"))
    store.room = room
    rows = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0)).half()
    for part in rows.split(3):
        store.keep("tokens", 7, part)
    return store, rows


@pytest.mark.parametrize(("room", "in_host_memory"), [(2 * BYTES, 0), (2 * BYTES - 1, 1), (BYTES, 1), (0, 2)])
@pytest.mark.parametrize("keyframes", [[0, 5], [2], [3, 1, 4], range(6)])
def test_rows_are_bit_equal_wherever_they_lay(moved, room, in_host_memory, keyframes):
    store, rows = kept(room)
    assert moved == [BYTES] * in_host_memory
    found = store.rows("tokens", 7, keyframes)
    assert found.dtype == torch.float16 and torch.equal(found, rows[list(keyframes)])


def test_what_is_in_host_memory_is_a_copy(moved):
    rows = torch.zeros(2, 3)
    store = KeyframeStore(rows.device)
    store.room = 0
    store.keep("tokens", 0, rows)
    rows.fill_(1)
    assert not store.rows("tokens", 0, [0, 1]).any() and moved


def test_rows_of_the_same_call_that_are_not_kept_do_not_stay(moved):
    rows = torch.randn(24, 8, 5)
    store = KeyframeStore(rows.device)
    placed = store.placed(rows[2:4])
    assert torch.equal(placed, rows[2:4]) and placed.untyped_storage().nbytes() == placed.nbytes
    assert store.placed(rows) is rows


def test_memory_that_cannot_be_pinned_does_as_well(monkeypatch):
    empty = torch.empty

    def refusing(*shape, **more):
        if "pin_memory" in more:
            raise RuntimeError("CUDA error: out of memory")
        return empty(*shape, **more)

    monkeypatch.setattr(torch, "empty", refusing)
    store, rows = kept(0)
    assert torch.equal(store.rows("tokens", 7, range(6)), rows)


def test_kinds_and_layers_are_kept_apart_and_dropped_by_kind():
    store, rows = kept(0)
    store.keep("tokens", 8, -rows)
    store.keep(0, 7, 2 * rows)
    assert store.layers("tokens") == [7, 8] and store.layers(0) == [7] and store.layers("keys") == []
    assert torch.equal(store.rows("tokens", 8, [1]), -rows[1:2]) and torch.equal(store.rows(0, 7, [1]), 2 * rows[1:2])
    store.drop("tokens")
    store.drop("keys")
    assert store.layers("tokens") == [] and store.layers(0) == [7]
    store.clear()
    assert store.layers(0) == []
