"""One evaluation of an inversion run again to look inside: the fit of a layer, or the output of its self-attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.em import Bases
from ....stem_kernels.token_parts import Tokens, parts_of
from ..attention.installing import install, installed_method
from ..attention.method import check_replayable
from ..attention.rows import key_of, size_of
from ..seams.layer_map import AttentionLayer
from ..stem.attention import StemSelfAttention
from ..stem.fitting import FitKey, Fitting
from .batch_size import with_batch_size
from .inversion import Inversion
from .sampling import SourceGuider, invert_between


@dataclass(frozen=True)
class ObservedFit:
    """A fit: features [..., m, c] and bases, on the CPU; the number of the chunk of frames."""

    features: Tensor
    bases: Bases
    chunk: int


@dataclass(frozen=True)
class _ObservingFitting(Fitting):
    layer: int
    seen: list[ObservedFit] = field(default_factory=list, compare=False)

    def fit(self, features: Tokens, key: FitKey, *more: Any) -> Bases:
        bases = super().fit(features, key, *more)
        if key.layer == self.layer:
            kept = replace(
                bases, **{name: getattr(bases, name).cpu() for name in ("centres", "mass", "directions")}, pooled=()
            )
            whole = torch.cat(parts_of(features), dim=-2)
            self.seen.append(ObservedFit(whole.float().cpu(), kept, key.chunk))
        return bases


def observed_fits(
    inversion: Inversion, layer: AttentionLayer, timestep: int, purpose: str
) -> tuple[list[ObservedFit], tuple[int, int]]:
    """The fits of a layer at a timestep, one for each chunk of frames that has bases of its own; its height and width.

    Raises:
        ValueError: the inversion has no bases, or those of a step cannot be had without the steps before it.
    """
    method = installed_method(inversion.model)
    if not isinstance(method, StemSelfAttention):
        raise ValueError(f"{purpose}: the INVERSION was made without STEM Bases, so it has no bases to show.")
    check_replayable(method, purpose)
    fitting = _ObservingFitting(method.settings, layer.index)
    model, sizes = install(inversion.model, replace(method, fitting=fitting)), []
    _on_output(model, layer, lambda output, size: sizes.append(size))
    evaluate(inversion, model, timestep)
    return fitting.seen, sizes[0]


def observed_output(inversion: Inversion, layer: AttentionLayer, timestep: int, purpose: str) -> Tensor:
    """Self-attention output of a layer at a timestep, after its output projection: [n, h, w, c] float32 on the CPU.

    Raises:
        ValueError: the attention of a step cannot be had without the steps before it.
    """
    check_replayable(installed_method(inversion.model), purpose)
    parts: list[Tensor] = []
    model = inversion.model.clone()
    _on_output(model, layer, lambda output, size: parts.append(output.float().cpu().unflatten(1, size)))
    evaluate(inversion, model, timestep)
    # batches of frames come one after the other
    return torch.cat(parts)


def _on_output(model: Any, layer: AttentionLayer, look: Callable[[Tensor, tuple[int, int]], None]) -> None:
    """Lets `look` see the self-attention output of a layer, [rows, p, c], with its height and width."""

    def patch(output: Tensor, extra_options: dict) -> Tensor:
        if key_of(extra_options) == layer.key:
            look(output, size_of(extra_options))
        return output

    model.set_model_attn1_output_patch(patch)


def evaluate(inversion: Inversion, model: Any, timestep: int) -> None:
    """Runs the step of the inversion that reached `timestep`, with MODEL."""
    entry = inversion.entry(timestep)
    model = with_batch_size(model, inversion.frames, inversion.size)
    samples = model.model.process_latent_out(inversion.latent(entry - 1))
    sigmas = torch.tensor(inversion.sigmas[entry - 1 : entry + 1])
    invert_between(SourceGuider(model, inversion.source), samples, sigmas, [timestep], inversion.convention)
