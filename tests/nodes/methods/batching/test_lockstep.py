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


def test_calls_that_meet_among_themselves_run_to_their_end_before_others_begin():
    events = []

    def call(number):
        def run(meet):
            pair = (number - number % 2, number - number % 2 + 1)
            for point in range(2):
                events.append((number, point))
                assert meet(number, tuple, pair) == pair
            return number

        return run

    assert run_in_lockstep([call(number) for number in range(4)]) == [0, 1, 2, 3]
    assert events == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0), (2, 1), (3, 1)]


def test_meetings_of_some_go_on_beside_a_meeting_of_all():
    def call(number):
        def run(meet):
            row, column = divmod(number, 2)
            of_row = meet(number, sum, (2 * row, 2 * row + 1))
            # values come in the order of the members
            of_column = meet(of_row, tuple, (2 + column, column))
            return meet((of_row, of_column), list)

        return run

    results = run_in_lockstep([call(number) for number in range(4)])
    assert results == [[(1, (5, 1)), (1, (5, 1)), (5, (5, 1)), (5, (5, 1))]] * 4


def test_calls_that_wait_for_different_meetings_are_an_error():
    with pytest.raises(RuntimeError, match="0 of 2 batches of frames have ended"):
        run_in_lockstep([lambda meet: meet(1, sum, (0, 1)), lambda meet: meet(1, sum, (1, 0))])


def test_what_was_made_is_held_by_those_alone_who_got_it():
    class Large:
        pass

    made = []

    def together(values):
        large = Large()
        made.append(weakref.ref(large))
        return large

    def first(meet):
        assert isinstance(meet(None, together), Large)
        assert made[0]() is not None  # the other has not had it yet
        meet(None, list)

    def second(meet):
        assert isinstance(meet(None, together), Large)
        assert made[0]() is None
        meet(None, list)

    run_in_lockstep([first, second])


def test_lockstep_can_be_nested():
    def inner(meet):
        return meet(1, sum)

    def outer(meet):
        return meet(sum(run_in_lockstep([inner, inner])), sum)

    assert run_in_lockstep([outer, outer]) == [8, 8]
