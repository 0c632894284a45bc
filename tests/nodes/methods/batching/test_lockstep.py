"""Calls that run by turns and meet."""

from __future__ import annotations

import contextvars
import weakref

import pytest
from comfyui_stem.nodes.methods.batching.lockstep import run_in_lockstep


def test_calls_wait_for_each_other_and_get_what_is_made_of_all_values():
    events = []

    def call(number):
        def run(meet):
            events.append(f"start {number}")
            total = meet(number, sum)
            events.append(f"met {number}")
            return meet(total * number, max)

        return run

    results = run_in_lockstep([call(n) for n in (1, 2, 3)])
    assert results == [18, 18, 18]
    assert events == ["start 1", "start 2", "start 3", "met 1", "met 2", "met 3"]


def test_what_is_made_together_is_made_once():
    times = []

    def together(values):
        times.append(values)
        return object()

    first, second = run_in_lockstep([lambda meet: meet("a", together), lambda meet: meet("b", together)])
    assert first is second
    assert times == [["a", "b"]]


def test_results_come_in_the_order_of_the_calls():
    assert run_in_lockstep([lambda meet, n=n: n for n in range(5)]) == [0, 1, 2, 3, 4]


class Broken(Exception):
    pass


@pytest.mark.parametrize("at", ["start", "meeting", "after"])
@pytest.mark.parametrize("who", [0, 1, 2])
def test_an_error_unwinds_every_call_and_goes_on(at, who):
    open_now = set()

    def fail(point, number):
        if point == at and number == who:
            raise Broken(point)

    def call(number):
        def run(meet):
            open_now.add(number)
            try:
                fail("start", number)
                meet(number, lambda values: fail("meeting", who))
                fail("after", number)
                meet(number, len)
            finally:
                open_now.discard(number)

        return run

    with pytest.raises(Broken, match=at):
        run_in_lockstep([call(n) for n in range(3)])
    assert not open_now


def test_a_call_that_ends_early_is_an_error_and_not_a_wait_for_ever():
    open_now = []

    def waits(meet):
        open_now.append(1)
        try:
            meet(1, sum)
        finally:
            open_now.pop()

    with pytest.raises(RuntimeError, match="1 of 2 batches of frames have ended"):
        run_in_lockstep([waits, lambda meet: None])
    assert not open_now


def test_a_call_that_cannot_be_unwound_does_not_keep_others_from_it(caplog):
    open_now = set()

    def stubborn(meet):
        try:
            meet(1, sum)
        except BaseException:
            raise Broken("stubborn") from None

    def waits(meet):
        open_now.add(1)
        try:
            meet(1, sum)
        finally:
            open_now.discard(1)

    def fails(meet):
        raise Broken("first")

    with pytest.raises(Broken, match="first"):
        run_in_lockstep([waits, stubborn, fails])
    assert not open_now
    assert "stubborn" in caplog.text


def test_context_variables_reach_every_call():
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    assert run_in_lockstep([lambda meet: meet(variable.get(), sum), lambda meet: meet(variable.get(), sum)]) == [14, 14]


def test_what_a_meeting_made_is_gone_before_the_next_one():
    made = []

    class Large:
        pass

    def together(values):
        assert all(reference() is None for reference in made)
        large = Large()
        made.append(weakref.ref(large))
        return large

    def call(meet):
        for _ in range(3):
            meet(None, together)
        return "done"

    assert run_in_lockstep([call, call]) == ["done", "done"]
    assert len(made) == 3


def test_lockstep_can_be_nested():
    def inner(meet):
        return meet(1, sum)

    def outer(meet):
        return meet(sum(run_in_lockstep([inner, inner])), sum)

    assert run_in_lockstep([outer, outer]) == [8, 8]
