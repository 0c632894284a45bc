"""Which implementation serves, and what is said when none can."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.backends import choice, eager, triton_em
from comfyui_stem.stem_kernels.em import EMSettings


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def interpreted(monkeypatch):
    """As if Triton were there and ran on the CPU."""
    monkeypatch.setattr(triton_em, "find_spec", lambda name: name)
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def test_a_cpu_is_served_by_plain_pytorch(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert choice.chosen(normal(1, 9, 4), normal(1, 3, 4)) is eager


def test_triton_is_taken_where_it_can_serve(interpreted):
    assert choice.chosen(normal(1, 9, 4), normal(1, 3, 4)) is triton_em
    assert choice.chosen(normal(1, 9, 4), normal(1, 3, 4), "eager") is eager


@pytest.mark.parametrize(
    ("tokens", "bases"),
    [(normal(1, 9, 4, dtype=torch.float64), 3), (normal(1, 9, 4), triton_em.MOST_BASES + 1)],
)
def test_what_triton_cannot_do_goes_to_plain_pytorch(interpreted, tokens, bases):
    assert choice.chosen(tokens, normal(1, bases, 4)) is eager


@pytest.mark.parametrize(
    ("tokens", "bases", "why"),
    [(normal(1, 9, 4, dtype=torch.float64), 3, "float32, float16"), (normal(1, 9, 4), 1500, "at most 1024.*1500")],
)
def test_a_backend_that_was_asked_for_and_cannot_serve_says_why(interpreted, tokens, bases, why):
    with pytest.raises(ValueError, match=f"No kernel can fit .*{why}.*Set kernels of STEM Bases to auto"):
        choice.weighted_means(tokens, (tokens,), normal(1, bases, 4), 0.05, EMSettings().divisor, "triton")


def test_triton_is_refused_on_a_cpu_and_where_it_is_not_installed(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_em, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="need an NVIDIA GPU, not cpu"):
        choice.chosen(normal(1, 9, 4), normal(1, 3, 4), "triton")
    monkeypatch.setattr(triton_em, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Triton is not installed"):
        choice.chosen(normal(1, 9, 4), normal(1, 3, 4), "triton")


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_leading_dimensions_are_kept(leading):
    tokens, values = normal(*leading, 9, 4), normal(*leading, 9, 2)
    mass, (first, second) = choice.weighted_means(
        tokens, (tokens, values), normal(*leading, 5, 4), 0.5, EMSettings().divisor
    )
    assert mass.shape == (*leading, 5)
    assert first.shape == (*leading, 5, 4)
    assert second.shape == (*leading, 5, 2)
