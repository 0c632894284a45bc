"""The preset `reference_code` against an independent restatement of what the published STEM code computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from comfyui_stem.nodes.methods.stem.fitting import FitKey, Fitting
from comfyui_stem.nodes.methods.stem.key_bases import KeyBases
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.stem_kernels.em import fit_bases
from comfyui_stem.stem_kernels.initialisation import bases_from_noise, initial_bases
from comfyui_stem.tools.measured.errors import relative_error
from einops import rearrange


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class FittingFromNoise(Fitting):
    noise: torch.Tensor

    def initial(self, features, size, key):
        return bases_from_noise(features, self.noise)


def published_em(k, v, noise):
    """Bases of keys [h, m, d] and of values as the published STEM code computes them, head by head."""
    keys, values = [], []
    for head_k, head_v, draws in zip(k, v, noise, strict=True):
        mean = head_k.sum(0) / len(head_k)
        base = mean + ((head_k - mean) ** 2).sum(0).div(len(head_k) - 1).sqrt() * draws
        for _ in range(5):
            unit = base / ((base**2).sum(1, keepdim=True).sqrt() + 1e-4)
            logits = torch.einsum("kc,mc->mk", unit, head_k) / 0.01
            odds = (logits - logits.amax(1, keepdim=True)).exp()
            z = odds / odds.sum(1, keepdim=True)
            share = z / (z.sum(0) + 1e-4)
            base = torch.einsum("mk,mc->kc", share, head_k)
        keys.append(base)
        values.append(torch.einsum("mk,mc->kc", share, head_v))
    return torch.stack(keys), torch.stack(values)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize(("frames", "num_bases"), [(8, 16), (3, 48), (1, 40)])
def test_the_preset_reference_code_gives_the_bases_of_the_published_code(frames, num_bases, precision):
    heads, d, preset = 4, 8, PRESETS["reference_code"]
    # Keys of the length that keeps assignments from flipping within float32.
    k, v = (scale * normal(frames, 32, heads * d, seed=7) for scale in (0.05, 1.0))
    noise = normal(heads, num_bases, d, seed=8)
    fitting = FittingFromNoise(replace(preset, em=replace(preset.em, num_bases=num_bases)), noise)
    shared = KeyBases(fitting).of_pixels(k, k, v, FitKey(1, 0), heads)
    assert shared.logit_bias is None
    per_head = [rearrange(t.to(precision), "f p (h d) -> h (f p) d", h=heads) for t in (k, v)]
    for ours, published in zip((shared.keys, shared.values), published_em(*per_head, noise.to(precision)), strict=True):
        assert relative_error(rearrange(ours, "1 k (h d) -> h k d", h=heads), published) < 1e-5


def test_the_preset_reference_code_keeps_more_bases_than_tokens():
    tokens = normal(2, 20, 8, seed=0)
    preset = PRESETS["reference_code"]
    initial = initial_bases(
        tokens,
        preset.em.num_bases,
        preset.initialisation,
        torch.Generator().manual_seed(1),
        preset.clamp_to_tokens,
    )
    bases = fit_bases(tokens, initial, preset.em)
    assert bases.centres.shape == (2, 256, 8)
    assert bool(torch.isfinite(bases.centres).all())
    assert bool(bases.live(preset.em).all())
    assert bases.mass.sum(dim=-1).tolist() == pytest.approx([20, 20], rel=1e-5)
