"""Extended attention of keyframes in parts against attention written out, one keyframe after the other."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.methods.tokenflow import keyframe_attention
from comfyui_stem.nodes.methods.tokenflow.keyframe_attention import AllKeyframes, KeyframeRows, extended_attention
from comfyui_stem.nodes.methods.tokenflow.keyframe_store import KeyframeStore
from comfyui_stem.stem_kernels.attention import attention
from comfyui_stem.stem_kernels.correspondence import batch_slices

KEYFRAMES, PIXELS, CHANNELS, HEADS = 7, 6, 8, 2


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Rows of queries, and of keys, of each call of ComfyUI's attention, which is that of the reference here."""
    found = []

    def comfyui_attention(q, k, v, extra_options):
        found.append((q.shape[1] // PIXELS, k.shape[1] // PIXELS))
        return attention(q, k, v, HEADS)

    monkeypatch.setattr(keyframe_attention, "comfyui_attention", comfyui_attention)
    return found


def rows(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(KEYFRAMES, PIXELS, CHANNELS, generator=generator, dtype=torch.float64)


def attended(q, k, v, size, window, source=None):
    """By the code under test, with keyframes that come in passes of `size`: [keyframes, p, c]."""
    kinds = {"queries": q, "keys": k, "values": v}
    parts = [
        KeyframeRows(range(part.start, part.stop), {kind: tensor[part] for kind, tensor in kinds.items()})
        for part in batch_slices(KEYFRAMES, size)
    ]
    return torch.cat(extended_attention(AllKeyframes(parts, 3, source), window, {}))


def written_out(q, k, v, window):
    found = []
    for keyframe in range(KEYFRAMES):
        nearest = sorted(range(KEYFRAMES), key=lambda other, here=keyframe: (abs(other - here), other))
        read = sorted(nearest[: window or KEYFRAMES])
        found.append(attention(q[keyframe][None], *(t[read].flatten(0, 1)[None] for t in (k, v)), HEADS))
    return torch.cat(found)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("window", [0, 1, 2, 3, 4, 6, 7, 32])
def test_each_keyframe_attends_to_those_nearest_to_it(size, window):
    q, k, v = map(rows, range(3))
    torch.testing.assert_close(attended(q, k, v, size, window), written_out(q, k, v, window))


@pytest.mark.parametrize("window", [0, 3])
def test_the_sources_queries_and_keys_replace_those_of_the_edit(window):
    q, k, v, *source = map(rows, range(5))
    store = KeyframeStore(torch.device("cpu"))
    for kind, of_kind in zip(("queries", "keys"), source, strict=True):
        store.keep(kind, 3, of_kind)
    found = attended(torch.full_like(q, torch.nan), torch.full_like(k, torch.nan), v, 3, window, store)
    torch.testing.assert_close(found, written_out(*source, v, window))


@pytest.mark.parametrize(
    ("size", "window", "expected"),
    [
        (7, 0, [(7, 7)]),
        (3, 0, [(3, 7), (3, 7), (1, 7)]),
        (7, 5, [(3, 5), (1, 5), (3, 5)]),
        (3, 5, [(3, 5), (1, 5), (2, 5), (1, 5)]),
    ],
)
def test_keyframes_of_a_pass_with_the_same_window_are_one_call(calls, size, window, expected):
    attended(*map(rows, range(3)), size, window)
    assert calls == expected
