"""Beside a run of a sampler: the decoder out of memory, a host that splits what it can, several workflows queued."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....batch.comfyui.client import Result
from ...demo.workflow import node_titled
from ..host_under_test import SECONDS, HostUnderTest, same
from .graphs import NONE, SAMPLERS, Fault, Prompt, Sampler, in_the_way, prompt_of, prompt_with

BY_NAME = {sampler.name: sampler for sampler in SAMPLERS}
TOKENFLOW, FATEZERO = BY_NAME["TokenFlow Edit"], BY_NAME["FateZero Edit with STEM"]
WHOLE = BY_NAME["STEM Inversion Sampler, all frames at once"]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures in 255 levels; 99 where they are equal."""
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return round(min(99.0, 10 * np.log10(255**2 / error)) if error else 99.0, 1)


def decoder_out_of_memory(host: HostUnderTest) -> Iterator[dict]:
    """Once, and again when the host tries it in tiles."""

    def prompt(times: int) -> Prompt:
        whole = prompt_of(TOKENFLOW, NONE, host.demo_clip)
        return in_the_way(whole, "Decode edit", "vae", "vae fault", "STEMTestVAEFault", times=times)

    undisturbed = host.good(prompt(0), TOKENFLOW.save)
    for times in (1, 2):
        failing = prompt(times)
        result = host.run(failing)
        found = host.pictures(result, node_titled(failing, TOKENFLOW.save))
        row = {"sampler": "the host's VAE Decode after TokenFlow Edit", "fault": "out of memory"}
        row |= {"place": f"the decoder, {times} time{'s'[: times - 1]}", "told": [result.error]}
        row |= {"outcome": "failed" if found is None else "went on"}
        if found is not None:
            row["psnr"] = psnr(found, undisturbed)
        yield row | {"equal": [same(host.good(prompt(0), TOKENFLOW.save, "Decode edit"), undisturbed)]}


def short_of_memory(host: HostUnderTest) -> Iterator[dict]:
    """The host then has room for one frame: STEM Bases computes one at a time, and conditionings do so in any case."""
    for sampler in (TOKENFLOW, FATEZERO, WHOLE):

        def made(short: bool, sampler: Sampler = sampler) -> tuple[np.ndarray, int]:
            prompt = prompt_with(sampler, host.demo_clip, "STEMTestShortOfMemory", short=short)
            return host.good(prompt, sampler.save, sampler.node), host.state()["most_rows"]

        undisturbed, merged = made(False)
        split, alone = made(True)
        again, _ = made(False)
        yield {
            "sampler": sampler.name,
            "fault": "short of memory",
            "place": f"at most {alone} rows a pass instead of {merged}",
            "outcome": "went on",
            "told": [None],
            "psnr": psnr(split, undisturbed),
            "equal": [same(again, undisturbed)],
        }


def queued_together(host: HostUnderTest) -> Iterator[dict]:
    """Two workflows of one checkpoint in the queue: as they are, and when the first one fails or is interrupted."""
    alone = [host.good(prompt_of(sampler, NONE, host.demo_clip), sampler.save) for sampler in (TOKENFLOW, FATEZERO)]
    for fault in (NONE, Fault("exception", "PREDICT_NOISE", 2), Fault("interrupt", "PREDICT_NOISE", 2)):
        host.client.forget_results()
        prompts = [prompt_of(TOKENFLOW, fault, host.demo_clip), prompt_of(FATEZERO, NONE, host.demo_clip)]
        ended = []
        for prompt, number in [(prompt, host.client.queue(prompt)) for prompt in prompts]:
            record = host.client.history(number, SECONDS)
            ended.append((prompt, Result(record["outputs"], {}, record["status"]["status_str"], None), record))
        found = [
            host.pictures(result, node_titled(prompt, sampler.save))
            for (prompt, result, _), sampler in zip(ended, (TOKENFLOW, FATEZERO), strict=True)
        ]
        expected = list(zip(found, alone, strict=True))[0 if fault is NONE else 1 :]
        yield {
            "sampler": "TokenFlow Edit and FateZero Edit queued at once",
            "fault": fault.kind.replace("off", "none"),
            "place": "" if fault is NONE else f"the first one, {fault.place}",
            "outcome": "went on" if found[0] is not None else "failed",
            "told": [message_of(ended[0][2])],
            "equal": [same(*pair) for pair in expected],
        }


def message_of(record: dict) -> str | None:
    """What the host's record of a workflow says of its failure."""
    for kind, data in record["status"]["messages"]:
        if kind == "execution_error":
            return f"{data['exception_type']}: {data['exception_message'].strip()}"
        if kind == "execution_interrupted":
            return "The workflow was interrupted."
    return None
