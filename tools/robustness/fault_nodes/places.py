"""Where in a run a fault can happen: every patch, function, wrapper and callback that a node may put on a MODEL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch.utils._python_dispatch import TorchDispatchMode

OFF = "off"
KINDS = (OFF, "exception", "out of memory", "interrupt")
Tick = Callable[[], None]


class ArmedFault:
    """Happens at the call number `call`, once."""

    def __init__(self, kind: str, place: str, call: int) -> None:
        self.kind, self.place, self.call = kind, place, call
        self.calls = 0
        self.fired = False

    def tick(self) -> None:
        """To be called wherever the place is reached."""
        self.calls += 1
        if self.calls != self.call:
            return
        self.fired = True
        what = f"A fault that was asked for: {self.kind} in {self.place}, call {self.call}."
        if self.kind == "exception":
            raise RuntimeError(what)
        if self.kind == "out of memory":
            raise comfy.model_management.OOM_EXCEPTION(what)
        # what POST /interrupt does
        comfy.model_management.interrupt_current_processing()


# The host's patches, and how many of their arguments they give back.
PATCHES = {
    "attn1_patch": 3,
    "attn1_output_patch": 1,
    "middle_patch": 1,
    "attn2_patch": 3,
    "attn2_output_patch": 1,
    "input_block_patch": 1,
    "input_block_patch_after_skip": 1,
    "output_block_patch": 2,
    "emb_patch": 1,
}
WRAPPERS = {name: getattr(WrappersMP, name) for name in vars(WrappersMP) if name.isupper()}
CALLBACKS = {name: getattr(CallbacksMP, name) for name in ("ON_PRE_RUN", "ON_PREPARE_STATE", "ON_CLEANUP", "ON_LOAD")}


def _patch(name: str, returned: int) -> Callable[[Any, Tick], None]:
    def install(model: Any, tick: Tick) -> None:
        def patch(*arguments: Any) -> Any:
            tick()
            return arguments[0] if returned == 1 else arguments[:returned]

        model.set_model_patch(patch, name)

    return install


def _wrapper(kind: str, after: bool) -> Callable[[Any, Tick], None]:
    def install(model: Any, tick: Tick) -> None:
        def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
            if after:
                result = executor(*args, **kwargs)
                tick()
                return result
            tick()
            return executor(*args, **kwargs)

        model.add_wrapper_with_key(kind, "stem_test_fault", wrapper)

    return install


def _callback(kind: str) -> Callable[[Any, Tick], None]:
    def install(model: Any, tick: Tick) -> None:
        model.add_callback_with_key(kind, "stem_test_fault", lambda *arguments: tick())

    return install


def _cross_attention(model: Any, tick: Tick) -> None:
    def replace(q: Any, k: Any, v: Any, extra_options: dict) -> Any:
        tick()
        return optimized_attention(q, k, v, extra_options["n_heads"], attn_precision=extra_options["attn_precision"])

    model.set_model_attn2_replace(replace, "output", 5)


def _function_wrapper(model: Any, tick: Tick) -> None:
    def wrapper(apply_model: Callable, arguments: dict) -> Any:
        tick()
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(wrapper)


def _guidance(model: Any, tick: Tick) -> None:
    def cfg(arguments: dict) -> Any:
        tick()
        return arguments["uncond"] + (arguments["cond"] - arguments["uncond"]) * arguments["cond_scale"]

    model.set_model_sampler_cfg_function(cfg)


def _before_guidance(model: Any, tick: Tick) -> None:
    def pre_cfg(arguments: dict) -> Any:
        tick()
        return arguments["conds_out"]

    model.set_model_sampler_pre_cfg_function(pre_cfg)


def _after_guidance(model: Any, tick: Tick) -> None:
    def post_cfg(arguments: dict) -> Any:
        tick()
        return arguments["denoised"]

    model.set_model_sampler_post_cfg_function(post_cfg)


def _operation(model: Any, tick: Tick) -> None:
    """Every operation on tensors in a run of a sampler: inside attention, EM, convolutions, moves of the latents."""

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None
        ) -> Any:
            tick()
            return function(*arguments, **(named or {}))

    def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with Watched():
            return executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "stem_test_fault", wrapper)


# How to reach each place of a MODEL.
PLACES: dict[str, Callable[[Any, Tick], None]] = {
    **{name: _patch(name, returned) for name, returned in PATCHES.items()},
    "attn2_replace": _cross_attention,
    "model_function_wrapper": _function_wrapper,
    "sampler_cfg_function": _guidance,
    "sampler_pre_cfg_function": _before_guidance,
    "sampler_post_cfg_function": _after_guidance,
    **{name: _wrapper(kind, after=False) for name, kind in WRAPPERS.items()},
    **{f"{name}, after": _wrapper(kind, after=True) for name, kind in WRAPPERS.items()},
    **{name: _callback(kind) for name, kind in CALLBACKS.items()},
    "tensor operation": _operation,
}
