"""The source's attention, kept and applied to other values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.attention.attention_map import attend_pixels
from comfyui_stem.nodes.methods.attention.frame_context import OWN_FRAME, FrameContextAttention
from comfyui_stem.nodes.methods.attention.method import RUN
from comfyui_stem.nodes.methods.seams.layer_map import AttentionLayer
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.fitting import FitKey, Fitting
from comfyui_stem.nodes.methods.stem.run import StemRun
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.stem_kernels.attention import attention, join_frames
from comfyui_stem.stem_kernels.em import fit_bases, responsibilities
from hypothesis import given, settings
from hypothesis import strategies as st

FRAMES, PIXELS, CHANNELS, HEADS = 4, 6, 8, 2
LAYER = AttentionLayer(5, "input", 8, level=2)
OPTIONS = {"n_heads": HEADS, "attn_precision": None, "cond_or_uncond": [0], "sigmas": torch.ones(1)}


def stem(preset="paper", fitting=Fitting, **changes):
    em = {key: changes.pop(key) for key in ("num_bases", "temperature") if key in changes}
    settings = replace(PRESETS[preset], **changes)
    settings = replace(settings, em=replace(settings.em, **em))
    return StemSelfAttention(fitting(settings))


METHODS = {
    "own frame": OWN_FRAME,
    "own and middle frame": FrameContextAttention((0, "mid")),
    "previous and first frame": FrameContextAttention((-1, "first")),
    "all frames": FrameContextAttention(None),
    "coarse layers only": FrameContextAttention(("mid",), finest_level=3),
    "stem": stem(num_bases=5),
    "stem by mass": stem(num_bases=5, mass_weighted=True),
    "stem with anchors": stem(num_bases=5, scope="anchor_frames", scope_frames=2),
    "paper_literal": stem("paper_literal", num_bases=5),
    "tokenflow": stem("tokenflow", num_bases=5),
    "reference_code": stem("reference_code", num_bases=5, scope_frames=3),
    "reference_code with empty bases": stem("reference_code", num_bases=40),
}


def features(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(seed=7):
    return features(seed, 3, CHANNELS, CHANNELS) / CHANNELS**0.5


def pass_of(method, tokens):
    """A source pass through one layer: output, attention, and the projection of values."""
    w_q, w_k, w_v = weights()
    options = OPTIONS | {RUN: StemRun(lambda sigma: torch.tensor(401))}
    queries_from, keys_from = method.context(tokens, LAYER, options)
    out, maps = method.recorded(queries_from @ w_q, keys_from @ w_k, keys_from @ w_v, LAYER, options)
    return out, maps, w_v


def applied(maps, values):
    return attend_pixels(maps, values, OPTIONS)


@pytest.mark.parametrize("name", METHODS)
def test_attention_applied_to_the_sources_own_values_is_the_sources_output(name):
    # FateZero's reconstruction property: X_edit = X_source.
    tokens = features(1, FRAMES, PIXELS, CHANNELS)
    out, maps, w_v = pass_of(METHODS[name], tokens)
    torch.testing.assert_close(applied(maps, tokens @ w_v), out, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_attention_is_linear_in_the_values_and_averages_them(name, seed):
    _, maps, _ = pass_of(METHODS[name], features(1, FRAMES, PIXELS, CHANNELS))
    one, other = (features(seed + i, FRAMES, PIXELS, CHANNELS) for i in (0, 1))
    torch.testing.assert_close(
        applied(maps, 2 * one - 3 * other), 2 * applied(maps, one) - 3 * applied(maps, other), rtol=1e-5, atol=1e-5
    )
    if METHODS[name] in (METHODS["reference_code"], METHODS["reference_code with empty bases"]):
        return  # its empty bases are keys without a value
    constant = torch.full_like(one, 1.5)
    torch.testing.assert_close(applied(maps, constant), constant, rtol=1e-6, atol=1e-6)


def test_pooled_attention_is_the_dense_map_of_all_pixels():
    # A (Pi X) W_V = (A Pi) (X W_V), with A and Pi written out.
    method, tokens = stem(num_bases=5), features(1, FRAMES, PIXELS, CHANNELS)
    other = features(2, FRAMES, PIXELS, CHANNELS)
    _, maps, w_v = pass_of(method, tokens)
    w_q, w_k, _ = weights()
    flat = tokens.flatten(0, 1)
    initial = method.fitting.initial(flat, 5, FitKey(401, LAYER.index))
    bases = fit_bases(flat, initial, method.settings.em)
    pooling = responsibilities(flat, bases, method.settings.em).T
    pooling = pooling / pooling.sum(dim=1, keepdim=True)  # Pi, [k, m]
    dense = attention(
        join_frames(tokens @ w_q, 1), (pooling @ flat @ w_k)[None], (pooling @ (other @ w_v).flatten(0, 1))[None], HEADS
    )
    torch.testing.assert_close(join_frames(applied(maps, other @ w_v), 1), dense, rtol=1e-5, atol=1e-5)


class Reversed(Fitting):
    def initial(self, *arguments):
        return super().initial(*arguments).flip(-2)


def test_the_order_of_the_bases_changes_nothing():
    tokens, values = features(1, FRAMES, PIXELS, CHANNELS), features(2, FRAMES, PIXELS, CHANNELS)
    results = [
        applied(pass_of(stem(num_bases=5, fitting=fitting), tokens)[1], values) for fitting in (Fitting, Reversed)
    ]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_a_base_for_every_pixel_is_attention_to_all_frames():
    tokens, values = features(1, FRAMES, PIXELS, CHANNELS), features(2, FRAMES, PIXELS, CHANNELS)
    methods = stem(num_bases=FRAMES * PIXELS, temperature=1e-4), METHODS["all frames"]
    # Tokens of equal length, so that every token is nearest to itself.
    tokens = tokens / tokens.norm(dim=-1, keepdim=True)
    results = [applied(pass_of(method, tokens)[1], values) for method in methods]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_attention_of_pixels_is_the_attention_of_the_layer(name):
    # What an edit uses for its own rows: the same operator, from keys and values of the pixels.
    tokens = features(1, FRAMES, PIXELS, CHANNELS)
    out, _, _ = pass_of(METHODS[name], tokens)
    w_q, w_k, w_v = weights()
    again = METHODS[name].attend_pixels(tokens, tokens @ w_q, tokens @ w_k, tokens @ w_v, LAYER, 401, OPTIONS)
    torch.testing.assert_close(again, out, rtol=1e-6, atol=1e-6)
