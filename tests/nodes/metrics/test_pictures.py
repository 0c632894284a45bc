"""Features as colours: principal components of features whose directions are known."""

from __future__ import annotations

import numpy as np
import torch
from comfyui_stem.nodes.metrics.pictures import colours, principal_components
from hypothesis import given, settings
from hypothesis import strategies as st


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20)
@given(m=st.integers(5, 40), c=st.integers(3, 8), seed=st.integers(0, 1000))
def test_components_are_those_of_a_singular_value_decomposition(m, c, seed):
    features = normal(m, c, seed=seed) * torch.arange(1, c + 1)
    centred = (features - features.mean(0)).numpy()
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    ours = principal_components(features).numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(u[:, :3] * s[:3]), rtol=1e-6, atol=1e-8)


def test_components_do_not_turn_round_when_features_move_or_repeat():
    features = normal(30, 6)
    moved = principal_components(features + 100)
    torch.testing.assert_close(moved, principal_components(features), rtol=1e-6, atol=1e-6)
    twice = principal_components(torch.cat([features, features]))
    torch.testing.assert_close(twice[:30], principal_components(features), rtol=1e-6, atol=1e-6)


def test_colours_are_within_range_and_equal_features_have_equal_ones():
    features = normal(50, 7)
    features[10] = features[3]
    found = colours(features)
    assert found.shape == (50, 3) and float(found.min()) == 0 and float(found.max()) == 1
    assert torch.equal(found[10], found[3])


def test_one_outlier_does_not_take_the_range():
    features = normal(1000, 4)
    features[0] = 1e6
    plain, spoiled = colours(features[1:]), colours(features)[1:]
    assert float(plain.std()) > 0.1
    assert float(spoiled[:, 1:].std()) > 0.1


def test_features_of_few_channels_and_constant_ones_are_coloured():
    assert colours(normal(20, 1))[:, 1:].unique().tolist() == [0.5]
    assert colours(torch.ones(20, 5)).unique().tolist() == [0.5]
