"""Running several calls of one function in turns: each stops where it needs something of all the others.

A call runs as a greenlet, so it can stop deep inside the network's forward pass, in ComfyUI's own code, and go on from
there. Everything happens in one thread, one call at a time.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

Result = TypeVar("Result")
# meet(value, together) -> together([value of every call]), computed once
Meet = Callable[[Any, Callable[[list], Any]], Any]


def run_in_lockstep(calls: Sequence[Callable[[Meet], Result]]) -> list[Result]:
    """Runs the calls and returns their results, in order.

    Each call gets a function `meet(value, together)`. It hands over its value and waits until all calls have done so;
    then `together` of the first call is applied once to the list of all values, in order, and every call gets the
    result.

    If one call or a meeting fails, all others are unwound, so that what they have opened is closed, and the error goes
    on.

    Raises:
        RuntimeError: some calls have ended while others wait for them.
    """
    hub = getcurrent()

    def meet(value: Any, together: Callable[[list], Any]) -> Any:
        return hub.switch((value, together))

    runs = [greenlet(call) for call in calls]
    for run in runs:
        run.gr_context = contextvars.copy_context()
    sent: Any = meet
    with ExitStack() as unwinding:
        for run in runs:
            unwinding.callback(_unwind, run)
        while True:
            arrived = [run.switch(sent) for run in runs]
            ended = sum(run.dead for run in runs)
            if ended == len(runs):
                return arrived
            if ended:
                raise RuntimeError(
                    f"{ended} of {len(runs)} batches of frames have ended while others are still waiting for them; "
                    "another node skips parts of the network for some frames. Disconnect it from the MODEL chain, or "
                    "set frames_per_batch to the number of frames."
                )
            together, values = arrived[0][1], [value for value, _ in arrived]
            # what the last meeting made may be large, and every call has it by now
            arrived = sent = None
            sent = together(values)
            del values


def _unwind(run: greenlet) -> None:
    if not run.dead:
        try:
            run.throw(GreenletExit)
        except Exception:
            logging.exception("STEM Inversion: a batch of frames failed while it was being stopped after another error")
