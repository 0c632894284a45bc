"""Each step of the set-up is done once, and again only when it has to be."""

from __future__ import annotations

import pytest
from comfyui_stem.tools.host.environment.steps import Step, run_steps


class Workshop:
    """Two steps that leave files, the second built on the first."""

    def __init__(self, folder):
        self.folder = folder
        self.done = []
        self.fail = None

    def make(self, name):
        if name == self.fail:
            raise KeyboardInterrupt
        self.done.append(name)
        (self.folder / name).write_text("made")

    def step(self, name, inputs, after=()):
        return Step(name, name, inputs, (self.folder / name).is_file, lambda: self.make(name), after)

    def steps(self, first=("1",), second=("1",)):
        base = self.step("base", first)
        return [base, self.step("top", second, (base,)), self.step("other", ("1",))]

    def run(self, **inputs):
        self.done.clear()
        run_steps(self.steps(**inputs), self.folder / "stamps", lambda text: None)
        return list(self.done)


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_a_second_run_does_nothing(workshop):
    assert workshop.run() == ["base", "top", "other"]
    assert workshop.run() == []


def test_a_changed_input_repeats_the_step_and_those_built_on_it(workshop):
    workshop.run()
    assert workshop.run(first=("2",)) == ["base", "top"]
    assert workshop.run(first=("2",), second=("2",)) == ["top"]
    assert workshop.run(first=("2",), second=("2",)) == []


def test_inputs_are_told_apart_by_where_they_are_divided(workshop):
    workshop.run(second=("ab", "c"))
    assert workshop.run(second=("a", "bc")) == ["top"]


def test_a_result_that_has_gone_is_made_again_with_what_is_built_on_it(workshop):
    workshop.run()
    (workshop.folder / "base").unlink()
    assert workshop.run() == ["base", "top"]


def test_an_interrupted_run_goes_on_where_it_stopped(workshop):
    workshop.fail = "top"
    with pytest.raises(KeyboardInterrupt):
        workshop.run()
    workshop.fail = None
    assert workshop.run() == ["top", "other"]


def test_a_step_that_is_interrupted_while_it_is_repeated_has_no_stamp_left(workshop):
    workshop.run()
    workshop.fail = "top"
    with pytest.raises(KeyboardInterrupt):
        workshop.run(second=("2",))
    workshop.fail = None
    assert workshop.run() == ["top"]
