"""A call of ComfyUI's network as wrappers around it see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class NetworkCall:
    """Arguments of one call; `options` are its transformer options, `more` the conditionings that have other names."""

    x: Tensor
    timesteps: Tensor | None
    context: Tensor | None
    y: Tensor | None
    control: dict | None
    options: dict
    more: dict

    def made(self, executor: Any) -> Tensor:
        """The output of the network, and of the wrappers further in."""
        return executor(self.x, self.timesteps, self.context, self.y, self.control, self.options, **self.more)


def network_wrapper(function: Callable[[Any, NetworkCall], Tensor]) -> Callable:
    """A DIFFUSION_MODEL wrapper from a function of ComfyUI's executor and the call."""

    def diffusion_model(
        executor: Any,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict | None = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return function(executor, NetworkCall(x, timesteps, context, y, control, transformer_options or {}, kwargs))

    return diffusion_model
