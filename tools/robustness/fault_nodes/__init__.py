"""A companion pack for `make faults` and tests: nodes that cause a fault of a chosen kind at a chosen place, once.

They stand for other people's nodes: they reach into a run only through what the host offers to any pack. The route
/stem_faults tells what happened, and what the host holds.
"""

from __future__ import annotations

import gc

import comfy.model_management
import greenlet
import torch
from aiohttp import web
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .places import KINDS, OFF, PLACES, ArmedFault

CATEGORY = "STEM tests"
# Smaller tensors come and go with the host's own bookkeeping.
LARGE_BYTES = 4096


class Record:
    """What the newest nodes have seen; a host runs one workflow at a time."""

    fault = ArmedFault(OFF, "", 0)
    most_rows = 0


class FaultInModel(io.ComfyNode):
    """MODEL -> MODEL that fails at the call number `call` of a place; 0 never fails, it only counts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMTestFault",
            category=CATEGORY,
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("kind", options=list(KINDS)),
                io.Combo.Input("place", options=list(PLACES)),
                io.Int.Input("call", default=1, min=0, max=1 << 31),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, kind: str, place: str, call: int) -> io.NodeOutput:
        Record.fault = ArmedFault(kind, place, call)
        clone = model.clone()
        if kind != OFF:
            PLACES[place](clone, Record.fault.tick)
        return io.NodeOutput(clone)


class FaultInVAE(io.ComfyNode):
    """VAE -> VAE whose decoder runs out of memory `times` times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMTestVAEFault",
            category=CATEGORY,
            inputs=[io.Vae.Input("vae"), io.Int.Input("times", default=1, min=0, max=9)],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, vae, times: int) -> io.NodeOutput:
        left = [times]

        def fail(module, inputs) -> None:
            if left[0] == 0:
                handle.remove()
                return
            left[0] -= 1
            raise comfy.model_management.OOM_EXCEPTION(
                "A fault that was asked for: out of memory in the VAE's decoder."
            )

        handle = vae.first_stage_model.taesd_decoder.register_forward_pre_hook(fail)
        return io.NodeOutput(vae)


class ShortOfMemory(io.ComfyNode):
    """MODEL -> MODEL that the host believes to need far more memory than there is, so that it splits what it can."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMTestShortOfMemory",
            category=CATEGORY,
            inputs=[io.Model.Input("model"), io.Boolean.Input("short")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float:
        return float("nan")  # what it counts starts again with each run

    @classmethod
    def execute(cls, model, short: bool) -> io.NodeOutput:
        Record.most_rows = 0

        def count(features, transformer_options: dict):
            Record.most_rows = max(Record.most_rows, features.shape[0])
            return features

        clone = model.clone()
        clone.set_model_input_block_patch(count)
        if short:
            clone.add_object_patch("memory_usage_factor", 1e12)
        return io.NodeOutput(clone)


class OtherWeights(io.ComfyNode):
    """MODEL -> MODEL with changed weights, as a LoRA changes them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMTestOtherWeights",
            category=CATEGORY,
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        key = "diffusion_model.middle_block.1.transformer_blocks.0.ff.net.2.weight"
        weight = model.model.state_dict()[key]
        clone = model.clone()
        clone.add_patches({key: (torch.full_like(weight, 0.01),)}, 1.0)
        return io.NodeOutput(clone)


def held() -> dict[str, int]:
    """Large tensors, their bytes, and coroutines that have begun and not ended, in this process."""
    gc.collect()
    storages, running = {}, 0
    for found in gc.get_objects():
        kind = type(found)
        if issubclass(kind, torch.Tensor):
            try:
                storage = found.untyped_storage()
            except (NotImplementedError, RuntimeError):
                continue
            if storage.nbytes() >= LARGE_BYTES:
                storages[storage.data_ptr()] = storage.nbytes()
        elif kind is greenlet.greenlet and found and not found.dead:
            running += 1
    return {"tensors": len(storages), "bytes": sum(storages.values()), "coroutines": running}


@PromptServer.instance.routes.get("/stem_faults")
async def state(request: web.Request) -> web.Response:
    """Calls of the newest fault's place, whether it has happened, whether a wish to free memory is still unheeded, and
    what ComfyUI holds, if `held` is asked for."""
    fault, unheeded = Record.fault, bool(PromptServer.instance.prompt_queue.get_flags(reset=False))
    answer = {"calls": fault.calls, "fired": fault.fired, "most_rows": Record.most_rows, "unheeded": unheeded}
    if "held" in request.query:
        answer |= held()
    return web.json_response(answer)


class FaultNodes(ComfyExtension):
    """The pack, as the host sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [FaultInModel, FaultInVAE, ShortOfMemory, OtherWeights]


async def comfy_entrypoint() -> FaultNodes:
    """The host's way into the pack."""
    return FaultNodes()
