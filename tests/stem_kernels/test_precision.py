"""In which precision products on a GPU are made, whatever other packs have set."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels import em
from comfyui_stem.stem_kernels.backends import eager
from comfyui_stem.stem_kernels.precision import tf32

PRODUCTS = torch.backends.cuda.matmul


def state():
    """All that PyTorch says; a mixture of its two names for this cannot be read by the first."""
    try:
        legacy = torch.get_float32_matmul_precision(), PRODUCTS.allow_tf32
    except RuntimeError:
        legacy = None
    return legacy, getattr(PRODUCTS, "fp32_precision", None)


@pytest.fixture(params=["nothing", "the switch", "the newer name"])
def others(request):
    """What another pack has set."""
    if request.param == "the newer name" and state()[1] is None:
        pytest.skip("this PyTorch has one name alone")
    with tf32(False):
        if request.param == "the switch":
            PRODUCTS.allow_tf32 = True
        elif request.param == "the newer name":
            PRODUCTS.fp32_precision = "tf32"
        yield state()


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_allowed_or_not_within_and_afterwards_as_it_was(others, allowed):
    with pytest.raises(KeyError), tf32(allowed):
        assert PRODUCTS.allow_tf32 is allowed
        raise KeyError
    assert state() == others


def test_em_multiplies_in_full_precision_and_leaves_the_setting_of_others(others, monkeypatch):
    seen, original = [], eager.weighted_means

    def watched(*arguments):
        seen.append(PRODUCTS.allow_tf32)
        return original(*arguments)

    monkeypatch.setattr(eager, "weighted_means", watched)
    tokens = torch.randn(20, 4)
    bases = em.fit_bases(tokens, tokens[:3], em.EMSettings(num_bases=3, iterations=2, backend="eager"))
    em.pool(tokens, [tokens], bases, em.EMSettings(num_bases=3, backend="eager"))
    assert seen == [False] * 3 and state() == others
