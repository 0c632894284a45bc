"""Faults inside a run of a sampler, each followed by a good run: of the same MODEL, whose fault is spent, or of the
same workflow with the fault switched off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ....batch.comfyui.client import Result
from ....batch.comfyui.events import Event
from ...demo.workflow import node_titled
from ..host_under_test import HostUnderTest, same
from .graphs import NONE, Fault, Prompt, Sampler, prompt_of

PATCHES = (
    "attn1_patch",
    "attn1_output_patch",
    "middle_patch",
    "attn2_patch",
    "attn2_output_patch",
    "attn2_replace",
    "input_block_patch",
    "input_block_patch_after_skip",
    "output_block_patch",
    "emb_patch",
)
NETWORK = (
    *PATCHES,
    "model_function_wrapper",
    "CALC_COND_BATCH",
    "APPLY_MODEL",
    "DIFFUSION_MODEL",
    "DIFFUSION_MODEL, after",
)
SAMPLING = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "OUTER_SAMPLE",
    "OUTER_SAMPLE, after",
    "PREPARE_SAMPLING",
    "SAMPLER_SAMPLE",
    "SAMPLER_SAMPLE, after",
    "PREDICT_NOISE",
    "ON_PRE_RUN",
    "ON_PREPARE_STATE",
    "ON_CLEANUP",
    "tensor operation",
)
SOME_OF_THEM = (
    "attn1_patch",
    "attn1_output_patch",
    "attn2_patch",
    "DIFFUSION_MODEL",
    "OUTER_SAMPLE",
    "OUTER_SAMPLE, after",
    "tensor operation",
)
LOADING = "ON_LOAD"
FIRST_AND_LATER, ENDS_AND_MIDDLE, SPREAD = (0.0, 0.55), (0.0, 0.5, 1.0), (0.0, 0.2, 0.4, 0.6, 0.8)
POSTED = "POST /interrupt"
# It computes in another order than the host does without it, so its pictures differ by rounding.
GUIDANCE = "sampler_cfg_function"
FAILED, REFUSED, NOT_REACHED = "failed", "refused", "not reached"
WENT_ON, ELSEWHERE = "went on", "failed elsewhere"


@dataclass(frozen=True)
class FaultPlan:
    """A kind of fault at a place, at calls that lie a share into those that belong to the sampler."""

    kind: str
    place: str
    shares: Sequence[float] = FIRST_AND_LATER


def plans(sampler: Sampler) -> list[FaultPlan]:
    """What is done to a sampler."""
    places = NETWORK + SAMPLING if sampler.runs else NETWORK
    if not sampler.thorough:
        places = SOME_OF_THEM
    step = "PREDICT_NOISE" if sampler.runs else "APPLY_MODEL"
    inside = [FaultPlan("out of memory", "tensor operation", SPREAD)] if sampler.runs else []
    return [
        *(FaultPlan("exception", place) for place in places),
        FaultPlan("interrupt", step, ENDS_AND_MIDDLE),
        FaultPlan("interrupt", "attn1_output_patch"),
        FaultPlan("interrupt", POSTED),
        FaultPlan("out of memory", "attn1_output_patch"),
        *inside,
        FaultPlan("out of memory", LOADING, (0.0,) if sampler.runs else (1.0,)),
    ]


def calls_at(count: int, within: tuple[float, float], shares: Sequence[float]) -> list[int]:
    """Numbers of calls, from 1, that lie a share into the part `within` of `count` calls."""
    begin, end = (int(part * count) for part in within)
    own = end - begin
    return sorted({begin + 1 + min(own - 1, int(share * own)) for share in shares}) if own else []


def tried(host: HostUnderTest, sampler: Sampler, chosen: Sequence[FaultPlan]) -> Iterator[dict]:
    """A row for each plan: what happened, whether good runs after it were as an undisturbed one, what is left."""
    undisturbed = host.good(prompt_of(sampler, NONE, host.demo_clip), sampler.save)
    before, files = host.state(held=True), host.files()
    for plan in chosen:
        row = posted(host, sampler) if plan.place == POSTED else one(host, sampler, plan)
        # the same workflow with the fault switched off: nothing may be left on what all MODELs share
        after = host.good(prompt_of(sampler, NONE, host.demo_clip), sampler.save, sampler.node)
        row["equal"].append(same(after, undisturbed))
        held = host.state(held=True)
        row |= {f"{name}_kept": held[name] - before[name] for name in ("tensors", "bytes", "coroutines")}
        row |= {"files_left": sorted(host.files() - files), "megabytes": round(host.megabytes(), 1)}
        yield {"sampler": sampler.name, "fault": plan.kind, "place": plan.place, **row}


def one(host: HostUnderTest, sampler: Sampler, plan: FaultPlan) -> dict:
    """The faults of a plan; all but the last are followed by a run of the same MODEL."""
    told, equal, outcomes, done = [], [], set(), []

    def fail(number: int) -> Prompt:
        prompt = prompt_of(sampler, Fault(plan.kind, plan.place, number), host.demo_clip)
        if plan.place == LOADING:
            host.unload_models()
        result = host.run(prompt)
        told.append(result.error)
        done.append(number)
        outcomes.add(outcome_of(host, sampler, prompt, result))
        return prompt

    if sampler.within[0] == 0 and plan.shares[0] == 0 and plan.place not in (GUIDANCE, LOADING):
        prompt = fail(1)
        # an inversion has no guidance that could be changed
        if outcomes <= {REFUSED, NOT_REACHED}:
            return {"outcome": outcomes.pop(), "calls": [], "of": 0, "told": told, "equal": equal}
        again = host.good(prompt, sampler.save, sampler.node)
        count = host.state()["calls"] - 1
        # the same patch on a MODEL that never failed: beside another pack's, source and prompts go through one by one
        unharmed = prompt_of(sampler, Fault(plan.kind, plan.place, 0), host.demo_clip)
        expected = host.good(unharmed, sampler.save, sampler.node)
        equal.append(same(again, expected))
    else:
        prompt = prompt_of(sampler, Fault(plan.kind, plan.place, 0), host.demo_clip)
        if plan.place == LOADING:
            host.unload_models()
        result = host.run(prompt)
        if result.status != "success":
            return {"outcome": REFUSED, "calls": [], "of": 0, "told": [result.error], "equal": equal}
        expected = host.pictures(result, node_titled(prompt, sampler.save))
        count = host.state()["calls"]
    within = (0.0, 1.0) if plan.place == LOADING else sampler.within
    calls = calls_at(count, within, plan.shares)
    for number in calls[len(done) :]:
        prompt = fail(number)
        if number != calls[-1]:
            equal.append(same(host.good(prompt, sampler.save, sampler.node), expected))
    return {
        "outcome": " and ".join(sorted(outcomes)) or NOT_REACHED,
        "calls": done,
        "of": count,
        "told": told,
        "equal": equal,
    }


def outcome_of(host: HostUnderTest, sampler: Sampler, prompt: Prompt, result: Result) -> str:
    """What became of a run with a fault."""
    if result.status == "success":
        host.pictures(result, node_titled(prompt, sampler.save))
        return WENT_ON if host.state()["fired"] else NOT_REACHED
    if not host.state()["fired"]:
        return REFUSED
    return FAILED if sampler.node in result.error else ELSEWHERE


def posted(host: HostUnderTest, sampler: Sampler) -> dict:
    """A person's interruption, when the page shows that the first of the steps has been done."""
    prompt = prompt_of(sampler, replace(NONE, call=0), host.demo_clip)
    node = node_titled(prompt, sampler.node)

    def stop(event: Event) -> None:
        if event.node == node and event.kind == "progress" and event.value >= 1:
            host.client.interrupt()

    result = host.run(prompt, stop)
    outcome = FAILED if result.status == "interrupted" else WENT_ON
    host.pictures(result, node_titled(prompt, sampler.save))
    return {"outcome": outcome, "calls": [], "of": 0, "told": [result.error], "equal": []}
