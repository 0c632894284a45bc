"""Running several calls of one function in turns: each stops where it needs something of others.

A call runs as a greenlet, so it can stop deep inside the network's forward pass, in ComfyUI's own code, and go on from
there. Everything happens in one thread, one call at a time.
"""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

Result = TypeVar("Result")
# meet(value, together) -> together([value of every member]), computed once
Meet = Callable[..., Any]


def alone(value: Any, together: Callable[[list], Any], members: tuple[int, ...] = ()) -> Any:
    """How a call meets that has no others."""
    return together([value])


def run_in_lockstep(calls: Sequence[Callable[[Meet], Result]]) -> list[Result]:
    """Runs the calls and returns their results, in order.

    Each call gets a function `meet(value, together, members)`. It hands over its value and waits until all members,
    given as numbers of calls, have done so; then `together` of the first member is applied once to the list of their
    values, and every member gets the result. Without `members` all calls meet.

    Of the calls that can go on, those that met last go on first, in the order of the members: calls that meet among
    themselves alone run to their end before others begin, so what they hold is not held for all.

    If one call or a meeting fails, all others are unwound, so that what they have opened is closed, and the error goes
    on.

    Raises:
        RuntimeError: some calls wait for others that have ended.
    """
    if len(calls) == 1:
        return [calls[0](alone)]
    hub, everyone = getcurrent(), tuple(range(len(calls)))

    def meet(value: Any, together: Callable[[list], Any], members: tuple[int, ...] = everyone) -> Any:
        # taken out of its box: nothing else then holds what a meeting made, which may be large
        return hub.switch((members, value, together)).pop()

    runs = [greenlet(call) for call in calls]
    for run in runs:
        run.gr_context = contextvars.copy_context()
    results: list[Any] = [None] * len(runs)
    ready: deque[tuple[int, Any]] = deque((number, meet) for number in everyone)
    waiting: dict[tuple[int, ...], dict[int, tuple]] = {}

    def next_turn() -> None:
        number, sent = ready.popleft()
        arrived = runs[number].switch(sent)
        if runs[number].dead:
            results[number] = arrived
            return
        members, *handed_over = arrived
        del arrived
        here = waiting.setdefault(members, {})
        here[number] = handed_over
        del handed_over
        if len(here) == len(members):
            del waiting[members]
            together, values = here[members[0]][1], [here[member][0] for member in members]
            here.clear()
            made = together(values)
            ready.extendleft((member, [made]) for member in reversed(members))

    with ExitStack() as unwinding:
        for run in runs:
            unwinding.callback(_unwind, run)
        while ready:
            next_turn()
        if waiting:
            ended = sum(run.dead for run in runs)
            raise RuntimeError(
                f"{ended} of {len(runs)} batches of frames have ended while others are still waiting for them; "
                "another node skips parts of the network for some frames. Disconnect it from the MODEL chain, or "
                "set frames_per_batch to the number of frames."
            )
        return results


def _unwind(run: greenlet) -> None:
    if not run.dead:
        try:
            run.throw(GreenletExit)
        except Exception:
            logging.exception("STEM Inversion: a batch of frames failed while it was being stopped after another error")
