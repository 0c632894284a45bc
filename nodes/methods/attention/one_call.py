"""Several calls of the network on the same weights, made as one: those of the source and of an edit's prompts.

The calls run in lockstep through ComfyUI's own code until they enter the network. There they meet, and the network
computes the rows of all of them at once; at every attention layer each gets its own rows. A call costs time of its own:
on a GPU the host starts a thousand kernels, on a CPU the weights are brought in order first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..batching.lockstep import run_in_lockstep
from ..seams.layer_map import AttentionLayer
from ..seams.network_call import NetworkCall
from ..seams.patch_marks import OURS, has_only_ours
from ..seams.shared_prompt import PROMPT_ROWS, of_rows
from .method import SelfAttentionMethod
from .rows import comfyui_attention

Result = TypeVar("Result")
# How a call meets the others, and in their common call what each of them is: keys of the transformer options.
_MEET, PARTS = f"{OURS}_meet", f"{OURS}_parts"
# Those that ComfyUI makes for each call.
_OF_A_CALL = {"cond_or_uncond", "uuids", "sigmas", "patches", "patches_replace", "wrappers", "callbacks"}


def as_one_call(calls: Sequence[Callable[[dict], Result]]) -> list[Result]:
    """Runs functions that call the network once each, in one call of it where they can be joined, and returns their
    results in order. What an earlier one leaves at a layer, later ones find there.

    Each is given transformer options to call the network with. They cannot be joined where patches of other packs might
    count rows, or with a ControlNet; the network is then called for one after the other.
    """
    return run_in_lockstep([lambda meet, call=call: call({_MEET: meet}) for call in calls])


def made(executor: Any, method: SelfAttentionMethod, call: NetworkCall) -> Tensor:
    """The output of the network for a call with a method at its layers, or its part of that of one call for several."""
    meet = call.options.get(_MEET)
    if meet is None:
        return call.made(executor)
    alone = replace(call, options={name: value for name, value in call.options.items() if name != _MEET})
    return meet((method, alone), partial(_made_as_one, executor)).pop(alone)


@dataclass(eq=False)
class Part:
    """One of the calls that are made as one.

    Attributes:
        method: at its layers.
        rows: which of all rows are its own.
        own: transformer options that are not those of the others.
        projected: shapes of what its queries and its keys are projected from at the layer under way; None for nothing.
    """

    method: SelfAttentionMethod
    rows: slice
    own: dict
    projected: tuple[torch.Size, torch.Size] | None = None

    def options(self, of_all: dict) -> dict:
        """What its layers find."""
        return {**of_all, PARTS: None, **self.own}


def parts_of(options: dict, rows: int) -> list[tuple[dict, slice]]:
    """Of the calls that a call of the network with so many rows is made of: the options and the rows of each."""
    parts: list[Part] | None = options.get(PARTS)
    return [(part.options(options), part.rows) for part in parts] if parts else [(options, slice(0, rows))]


def context(parts: Sequence[Part], tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
    """What queries and what keys and values are projected from, [1, all tokens, c] of all parts each: parts may differ
    in both, and each token is projected by itself."""
    found = []
    for part in parts:
        read = part.method.context(tokens[part.rows], layer, part.options(extra_options))
        part.projected = None if read is None else (read[0].shape, read[1].shape)
        if read is not None:
            found.append(read)
    found = found or [(tokens[:1, :1], tokens[:1, :1])]
    queries_from, keys_from = (torch.cat([read.flatten(0, 1) for read in of])[None] for of in zip(*found, strict=True))
    return queries_from, keys_from


def attend(
    parts: Sequence[Part], q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
) -> Tensor:
    """The attention output of all rows, given the projections of what `context` has returned."""
    shapes = [part.projected for part in parts if part.projected is not None]
    counts = [[shape[:2].numel() for shape in of] for of in zip(*shapes, strict=True)]
    if shapes:
        of_parts = zip(q[0].split(counts[0]), k[0].split(counts[1]), v[0].split(counts[1]), shapes, strict=True)
    outputs = []
    for part in parts:
        projected = (None, None, None)
        if part.projected is not None:
            *found, (of_queries, of_keys) = next(of_parts)
            of_each = zip(found, (of_queries, of_keys, of_keys), strict=True)
            projected = tuple(rows.unflatten(0, shape[:2]) for rows, shape in of_each)
        outputs.append(part.method.attend(*projected, layer, part.options(extra_options)))
    return torch.cat(outputs)


def attend_cross(
    parts: Sequence[Part], q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
) -> Tensor:
    """The cross-attention output of all rows; k and v are [parts, tokens, c]."""
    outputs = []
    for place, part in enumerate(parts):
        queries = q[part.rows]
        keys, values = (of_rows(of_prompts[place : place + 1], len(queries)) for of_prompts in (k, v))
        attend = part.method.attend_cross if part.method.controls(layer) else _own_cross
        outputs.append(attend(queries, keys, values, layer, part.options(extra_options)))
    return torch.cat(outputs)


def _own_cross(q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
    return comfyui_attention(q, k, v, extra_options)


def _made_as_one(
    executor: Any, arrived: Sequence[tuple[SelfAttentionMethod, NetworkCall]]
) -> dict[NetworkCall, Tensor]:
    """The output of each call."""
    calls = [call for _, call in arrived]
    if len(calls) == 1 or not _can_be_joined(calls):
        return {call: call.made(executor) for call in calls}
    counts, parts = [call.x.shape[0] for call in calls], []
    for method, call in arrived:
        start = parts[-1].rows.stop if parts else 0
        own = {name: value for name, value in call.options.items() if name.startswith(OURS)}
        own |= {name: call.options[name] for name in ("cond_or_uncond", "uuids")}
        parts.append(Part(method, slice(start, start + call.x.shape[0]), own))
    options = {
        **calls[0].options,
        **{name: [one for part in parts for one in part.own[name]] for name in ("cond_or_uncond", "uuids")},
        PARTS: parts,
        PROMPT_ROWS: counts,
    }
    x, timesteps, prompts = (
        torch.cat([getattr(call, name) for call in calls]) for name in ("x", "timesteps", "context")
    )
    y = None if calls[0].y is None else torch.cat([call.y for call in calls])
    together = replace(calls[0], x=x, timesteps=timesteps, context=prompts, y=y, options=options)
    return dict(zip(calls, together.made(executor).split(counts), strict=True))


def _can_be_joined(calls: Sequence[NetworkCall]) -> bool:
    """Whether the calls have the same kinds of arguments, one prompt for all rows, and nothing of other packs."""

    def kinds(call: NetworkCall) -> list:
        return [None if one is None else (one.shape[1:], one.dtype) for one in (call.x, call.context, call.y)]

    return all(
        kinds(call) == kinds(calls[0])
        and _same_options(call.options, calls[0].options)
        and call.context is not None
        and call.context.shape[0] == 1
        and call.control is None
        and not call.more
        and has_only_ours(call.options)
        for call in calls
    )


def _same_options(some: dict, others: dict) -> bool:
    """Whether two calls have the same transformer options of other packs; patches and wrappers are looked at apart."""
    names, found = (
        {name for name in options if not name.startswith(OURS) and name not in _OF_A_CALL} for options in (some, others)
    )

    def same(one: Any, other: Any) -> bool:
        return one is other or not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other

    return names == found and all(same(some[name], others[name]) for name in names)
