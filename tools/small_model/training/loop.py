"""A training loop: seeded, resumable, in one or several workers, with a moving average of the weights.

And where it runs, and in which precision.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from . import workers

SAVE_EVERY = 250
GRADIENT_NORM = 1.0


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(network.parameters()).device


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """A context whose convolutions and matrix products run in bfloat16 where the device has units for it."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    steps: number of optimiser steps. learning_rate: its peak; it rises for `warmup` steps and falls to zero as half a
    cosine. ema: how much of the averaged weights a step keeps, once there have been enough steps.
    """

    steps: int
    learning_rate: float
    warmup: int = 200
    ema: float = 0.999
    weight_decay: float = 0.01
    seed: int = 0

    def rate(self, step: int, fresh: int = 0) -> float:
        """The learning rate of a step; `fresh` is the first step of the optimiser, which knows nothing then."""
        rise = min(1.0, (step - fresh + 1) / self.warmup)
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def generator(self, step: int) -> torch.Generator:
        """The random numbers of a step in this worker: the same whether or not the training was interrupted before."""
        return torch.Generator().manual_seed(((self.seed * 1_000_003) + step) * 1_009 + workers.rank())


@dataclass(frozen=True)
class Start:
    """Weights to begin with, and how many steps they have been trained."""

    step: int
    weights: dict[str, Tensor]


def train(
    name: str,
    network: nn.Module,
    loss_of: Callable[[nn.Module, torch.Generator], Tensor],
    plan: Plan,
    file: Path,
    inspect: Callable[[nn.Module, int], None] | None = None,
    stop: int | None = None,
    start: Start | None = None,
) -> nn.Module:
    """Minimises `loss_of(network, random numbers)`; returns the averaged weights as a network of the same class.

    Goes on from `file` where that is there, and saves to it every SAVE_EVERY steps and at the end. `inspect` is then
    called with the averaged network and the step. `stop` ends an unfinished training early, to go on another time.
    Where there is no `file`, it begins with `start`.
    """
    optimiser = torch.optim.AdamW(
        network.parameters(), plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True
    )
    if start is not None:
        network.load_state_dict(start.weights)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(plan.ema), use_buffers=False)
    kept = {"network": network, "average": average, "optimiser": optimiser}
    first = fresh = 0 if start is None else start.step
    if file.is_file():
        # our own file, and weights_only loads nothing but tensors and numbers
        state = torch.load(file, weights_only=True)
        for part, what in kept.items():
            what.load_state_dict(state[part])
        first = state["step"]
    last = plan.steps if stop is None else min(stop, plan.steps)
    smooth = None
    leads = workers.rank() == 0
    bar = tqdm(
        range(first, last), disable=not leads, desc=name, initial=first, total=plan.steps, mininterval=5, smoothing=0.05
    )
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step, fresh)
        loss = loss_of(network, plan.generator(step))
        loss.backward()
        workers.average_gradients(network.parameters())
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        # early weights are far from good: the average then covers a tenth of the steps so far
        average.multi_avg_fn = get_ema_multi_avg_fn(min(plan.ema, (1 + step) / (10 + step)))
        average.update_parameters(network)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        bar.set_postfix_str(f"loss {smooth:.4f}", refresh=False)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == last:
            if leads:
                file.parent.mkdir(parents=True, exist_ok=True)
                written = file.with_suffix(".part")
                torch.save({"step": step + 1} | {part: what.state_dict() for part, what in kept.items()}, written)
                os.replace(written, file)
                if inspect is not None:
                    inspect(average.module, step + 1)
            workers.wait()
    return average.module
