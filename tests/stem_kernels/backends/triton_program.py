"""Run by test_triton_em.py in a process of its own: checks the kernels and prints the checks that passed."""

from __future__ import annotations

import itertools
import sys
import traceback
import types
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
pack = types.ModuleType("comfyui_stem")
pack.__path__ = [str(ROOT)]
sys.modules["comfyui_stem"] = pack

from comfyui_stem.stem_kernels.backends import eager, triton_em, triton_kernels  # noqa: E402
from comfyui_stem.stem_kernels.em import EMSettings, fit_bases  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DIVISOR = EMSettings().divisor


def normal(*shape, seed, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def in_float64(tokens, values, directions, temperature):
    values = [value.double() for value in values]
    return eager.weighted_means(tokens.double(), values, directions.double(), temperature, DIVISOR)


def check(ours, theirs, relative=2e-6):
    error = (ours.double() - theirs).norm() / theirs.norm()
    assert float(error) < relative, f"relative error {float(error):.2g}"


# heads, tokens, bases, channels
SIZES = (
    (1, 160, 256, 320),  # a layer of SD1.5, the last block of tokens ragged
    (1, 70, 130, 640),  # bases that are no power of two
    (1, 33, 16, 1280),
    (8, 90, 40, 40),  # per head
    (2, 41, 24, 160),
    (1, 5, 3, 8),  # less of everything than a block holds
    (1, 24, 1024, 32),  # the most bases
)


def sums():
    for dtype, (heads, count, k, channels) in itertools.product(("float32", "float16", "bfloat16"), SIZES):
        tokens, values = (normal(heads, count, c, seed=c, dtype=getattr(torch, dtype)) for c in (channels, 24))
        directions = normal(heads, k, channels, seed=1) / channels**0.5
        assert triton_em.refusal(tokens, directions) is None
        mass, means = triton_em.weighted_means(tokens, (tokens, values), directions, 0.3, DIVISOR)
        expected_mass, expected = in_float64(tokens, (tokens, values), directions, 0.3)
        check(mass, expected_mass)
        for ours, theirs in zip(means, expected, strict=True):
            check(ours, theirs)


def strides():
    whole = normal(2, 60, 4, 48, seed=3)
    tokens, values = whole[:, 5:45, 1, ::2], whole.transpose(2, 3)[:, 5:45, :40, 2]
    directions = normal(2, 24, 30, seed=4).transpose(1, 2)
    mass, means = triton_em.weighted_means(tokens, (values,), directions, 2.0, DIVISOR)
    expected_mass, expected = in_float64(tokens, (values,), directions, 2.0)
    check(mass, expected_mass)
    check(means[0], expected[0])


def chunks():
    tokens, directions = normal(1, 1500, 20, seed=5), normal(1, 24, 20, seed=6)
    whole_mass, whole = triton_em.weighted_means(tokens, (tokens,), directions, 1.0, DIVISOR)
    mass, means = triton_em.weighted_means(tokens, (tokens,), directions, 1.0, DIVISOR, chunk=333)
    check(mass, whole_mass.double())
    check(means[0], whole[0].double())
    again_mass, again = triton_em.weighted_means(tokens, (tokens,), directions, 1.0, DIVISOR)
    assert torch.equal(again_mass, whole_mass)
    assert torch.equal(again[0], whole[0])
    assert triton_kernels.sums(tokens.abs(), torch.ones_like(tokens[:, 0]), tokens).shape == (1, 20, 20)


def fit():
    tokens = normal(400, 64, seed=7)
    ours, theirs = (
        fit_bases(tokens, tokens[:32], EMSettings(temperature=0.5, backend=backend)) for backend in ("triton", "eager")
    )
    check(ours.centres, theirs.centres.double(), 1e-5)
    check(ours.mass, theirs.mass.double(), 1e-5)


def ties():
    tokens = 5 * torch.nn.functional.normalize(normal(40, 16, seed=8), dim=-1)
    initial = torch.cat([share * tokens for share in (1.0, 1.00002, 0.99998)])
    em = EMSettings(temperature=1e-3, iterations=1, normalize_bases=False, backend="triton")
    first, *others = fit_bases(tokens, initial, em).centres.chunk(3)
    check(first, tokens.double(), 1e-6)
    assert all(torch.equal(first, other) for other in others)


# Bytes of shared memory that a program can have, by compute capability.
SHARED = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10}


def compiled():
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    def shared(capability, kernel, pointers, constants, **options):
        kinds = pointers | dict.fromkeys(constants, "constexpr") | {"rate": "fp32"}
        signature = {name: kinds.get(name, "i32") for name in kernel.arg_names}
        constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
        return compile(source, target=GPUTarget("cuda", capability, 32), options=options).metadata.shared

    for capability, dtype in itertools.product(SHARED, ("*fp16", "*fp32")):
        limit = SHARED[capability]
        for k in (256, triton_em.MOST_BASES):
            tiles = triton_kernels.expectation_tiles(k)
            pointers = {"tokens": dtype, "directions": "*fp32", "weights": "*fp32", "mass": "*fp32"}
            assert shared(capability, triton_kernels._expectation, pointers, tiles.constants, **tiles.options) <= limit
        tiles = triton_kernels.sums_tiles(640)
        pointers = {"weights": "*fp32", "divisor": "*fp32", "values": dtype, "total": "*fp32"}
        assert shared(capability, triton_kernels._sums, pointers, tiles.constants, **tiles.options) <= limit


CHECKS = {"sums": sums, "strides": strides, "chunks": chunks, "fit": fit, "ties": ties, "compiled": compiled}


def main(names):
    """Runs every check named, those after one that fails too; prints which of them are right."""
    right = []
    for name in names:
        try:
            CHECKS[name]()
            right.append(name)
        except Exception:
            traceback.print_exc()
    print(*right)


if __name__ == "__main__":
    main(sys.argv[1:])
