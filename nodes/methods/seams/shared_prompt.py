"""One prompt for all frames: its keys and values are projected once, where ComfyUI projects them for every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .network_call import NetworkCall, network_wrapper
from .patch_marks import has_only_ours

_WRAPPER_KEY = "stem_inversion_shared_prompt"
_OVERRIDE = "optimized_attention_override"
# Rows of each prompt in a call that several share: a key of the transformer options.
PROMPT_ROWS = "stem_inversion_prompt_rows"


def share_prompt(transformer_options: dict) -> None:
    """Lets the calls of a run, whose conditionings are single prompts (see `check_conditioning`), share them. Wrappers
    of its MODEL come after this one."""
    wrappers = transformer_options.setdefault("wrappers", {}).setdefault(WrappersMP.DIFFUSION_MODEL, {})
    wrappers[_WRAPPER_KEY] = [_one_prompt]


def of_rows(prompts: Tensor, rows: int | Sequence[int]) -> Tensor:
    """Keys or values [prompts, ...] for as many rows as each prompt has, or one prompt for all; no copy of one."""
    if isinstance(rows, int):
        return prompts.expand(rows, *prompts.shape[1:]) if prompts.shape[0] == 1 else prompts
    return torch.cat([of_rows(prompts[place : place + 1], count) for place, count in enumerate(rows)])


@network_wrapper
def _one_prompt(executor: Any, call: NetworkCall) -> Tensor:
    options, context = call.options, call.context
    # what others have put there may count rows
    if context is not None and len(options.get("cond_or_uncond", ())) == 1 and has_only_ours(options):
        options = {**options, _OVERRIDE: _ForEveryRow(options.get(_OVERRIDE))}
        call = replace(call, context=context[:1], options=options)
    return call.made(executor)


@dataclass(frozen=True)
class _ForEveryRow:
    """Attention whose keys and values may be those of a prompt for all rows, with the override that there was."""

    override: Callable | None

    def __call__(self, attention: Callable, q: Tensor, k: Tensor, v: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if q.shape[0] != k.shape[0]:
            rows = named["transformer_options"].get(PROMPT_ROWS, q.shape[0])
            k, v = of_rows(k, rows), of_rows(v, rows)
        if self.override is None:
            return attention(q, k, v, *arguments, **named)
        return self.override(attention, q, k, v, *arguments, **named)
