"""Training in several processes, each on one core: faster than one process with as many threads.

torch.distributed.run starts them and sets the variables that are read here; without it there is one worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def join() -> None:
    """Meets the other workers, if this process was started as one of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        torch.set_num_threads(1)
        dist.init_process_group("gloo")


def leave() -> None:
    """Parts from the other workers."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This worker's number; 0 writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """The number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Returns when every worker has come here."""
    if dist.is_initialized():
        dist.barrier()


def sum_in_place(tensor: Tensor) -> None:
    """Replaces a tensor by the sum of those of all workers."""
    if dist.is_initialized():
        dist.all_reduce(tensor)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces every gradient by the mean of those of all workers; one message for all of them."""
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
