"""The blocked implementation in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.backends import eager
from comfyui_stem.stem_kernels.em import EMSettings, expectation, fit_bases
from comfyui_stem.tools.measured.bench.em import layer_shapes
from comfyui_stem.tools.measured.bench.results import VideoSize
from comfyui_stem.tools.measured.gpu.counting import Counts, Watch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

PROPERTY = settings(max_examples=25)


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def written_out(tokens, values, directions, temperature, em):
    z = expectation(tokens.to(directions.dtype), directions, temperature).transpose(-1, -2)
    mass = z.sum(dim=-1)
    return mass, [z @ value.to(directions.dtype) / em.divisor(mass)[..., None] for value in values]


@PROPERTY
@given(
    heads=st.integers(1, 3),
    m=st.integers(1, 40),
    k=st.integers(1, 20),
    c=st.integers(1, 9),
    block=st.integers(1, 45),
    temperature=st.sampled_from([0.01, 0.05, 2.0]),
    empty=st.sampled_from(["masked", "kept"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_of_any_size_give_masses_and_means_of_the_equations(heads, m, k, c, block, temperature, empty, seed):
    tokens, values = normal(heads, m, c, seed=seed), normal(heads, m, 3, seed=seed + 1)
    directions = normal(heads, k, c, seed=seed + 2)
    em = EMSettings(empty_bases=empty, mass_eps=0.25)
    mass, means = eager.weighted_means(tokens, (tokens, values), directions, temperature, em.divisor, block)
    expected_mass, expected = written_out(tokens, (tokens, values), directions, temperature, em)
    torch.testing.assert_close(mass, expected_mass)
    for ours, theirs in zip(means, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_more_tokens_than_one_block_holds_are_all_counted():
    directions, divisor = normal(1, 900, 5, seed=1, dtype=torch.float32), EMSettings().divisor
    count = 2 * eager.block_tokens(directions) + 17
    tokens = normal(1, count, 5, seed=0, dtype=torch.float32)
    mass, means = eager.weighted_means(tokens, (tokens,), directions, 0.5, divisor)
    whole_mass, whole = eager.weighted_means(tokens, (tokens,), directions, 0.5, divisor, block=count)
    assert float(mass.sum()) == pytest.approx(count, rel=1e-5)
    torch.testing.assert_close(mass, whole_mass)
    torch.testing.assert_close(means[0], whole[0])


@pytest.mark.parametrize(("heads", "k"), [(1, 1), (1, 256), (8, 256), (8, 4096), (20, 1024)])
def test_a_block_is_large_enough_for_a_product_and_no_larger_for_more_heads(heads, k):
    count = eager.block_tokens(torch.empty(heads, k, 4))
    assert count == eager.LEAST_TOKENS or heads * k * count <= eager.CPU_BLOCK < heads * k * (count + 1)
    assert count >= eager.LEAST_TOKENS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_responsibility_is_subnormal(dtype):
    tokens, directions = normal(1, 500, 8, seed=2, dtype=dtype), normal(1, 200, 8, seed=3, dtype=dtype)
    z = expectation(tokens, directions * 20, 0.02 if dtype == torch.float32 else 0.002)
    assert bool((z == 0).any())
    assert float(z[z > 0].min()) >= torch.finfo(dtype).tiny


def test_tokens_are_not_changed():
    tokens, directions = normal(1, 30, 4, seed=4), normal(1, 6, 4, seed=5)
    before = tokens.clone(), directions.clone()
    eager.weighted_means(tokens, (tokens,), directions, 0.05, EMSettings().divisor)
    assert torch.equal(tokens, before[0])
    assert torch.equal(directions, before[1])


class Subnormal(TorchDispatchMode):
    """Collects the operations that give subnormal numbers."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        for value in () if function.is_view or "empty" in str(function) else tree_iter(result):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                least = torch.finfo(value.dtype).tiny
                self.found += [str(function)] * bool(((value != 0) & (value.abs() < least)).any())
        return result


@pytest.mark.parametrize("temperature", [0.01, 0.05])
def test_no_operation_of_em_on_a_cpu_gives_subnormal_numbers(temperature):
    tokens, directions = normal(2, 400, 6, seed=0, dtype=torch.float32), normal(2, 50, 6, seed=1, dtype=torch.float32)
    directions /= directions.norm(dim=-1, keepdim=True)
    with Subnormal() as subnormal:
        eager.weighted_means(tokens, (tokens,), directions, temperature, lambda mass: mass + 1e-4)
    assert subnormal.found == []


def test_em_on_a_gpu_launches_at_most_a_thousand_kernels_a_step_of_48_frames_of_512x512():
    counts = Counts()
    with Watch(counts):
        for tokens, channels in layer_shapes(VideoSize(48, 512, 512)):
            features = torch.empty(tokens, channels, dtype=torch.float16, device="meta")
            fit_bases(features, torch.empty(256, channels, device="meta"), EMSettings(num_bases=256, iterations=3))
    assert 500 < counts.launches <= 1000
