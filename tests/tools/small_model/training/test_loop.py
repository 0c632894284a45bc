import pytest
import torch
from comfyui_stem.tools.small_model.training import loop
from comfyui_stem.tools.small_model.training.loop import Plan, train
from torch import nn

PLAN = Plan(steps=60, learning_rate=0.05, warmup=5, ema=0.9, weight_decay=0.0)
TARGET = torch.tensor([[1.0, -2.0, 0.5]])


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 1, bias=False)


def regression(net, generator):
    x = torch.randn(16, 3, generator=generator)
    return (net(x) - x @ TARGET.T).square().mean()


def test_it_finds_the_minimum_and_returns_the_same_class(tmp_path):
    trained = train("test", network(), regression, Plan(steps=400, learning_rate=0.05, ema=0.9), tmp_path / "a.pt")
    assert isinstance(trained, nn.Linear)
    torch.testing.assert_close(trained.weight.detach(), TARGET, atol=0.05, rtol=0)


def test_an_interrupted_training_gives_the_weights_of_an_undisturbed_one(tmp_path):
    whole = train("whole", network(), regression, PLAN, tmp_path / "whole.pt")
    train("part", network(), regression, PLAN, tmp_path / "part.pt", stop=23)
    resumed = train("part", network(), regression, PLAN, tmp_path / "part.pt")
    assert torch.equal(whole.weight, resumed.weight)


def test_a_step_that_fails_loses_nothing_that_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 10)
    whole = train("whole", network(), regression, PLAN, tmp_path / "whole.pt")
    calls = []

    def failing(net, generator):
        calls.append(None)
        if len(calls) > 25:
            raise RuntimeError("the machine was switched off")
        return regression(net, generator)

    with pytest.raises(RuntimeError, match="switched off"):
        train("broken", network(), failing, PLAN, tmp_path / "broken.pt")
    resumed = train("broken", network(), regression, PLAN, tmp_path / "broken.pt")
    assert torch.equal(whole.weight, resumed.weight)


def test_a_finished_training_is_not_done_again(tmp_path):
    first = train("done", network(), regression, PLAN, tmp_path / "done.pt")

    def never(net, generator):
        raise AssertionError("no step is left")

    again = train("done", network(), never, PLAN, tmp_path / "done.pt")
    assert torch.equal(first.weight, again.weight)


def test_the_learning_rate_rises_and_falls_to_nothing():
    rates = [PLAN.rate(step) for step in range(PLAN.steps)]
    assert rates[0] < rates[4] <= PLAN.learning_rate
    assert all(a > b for a, b in zip(rates[5:], rates[6:], strict=False))
    assert PLAN.rate(PLAN.steps) == pytest.approx(0)


def test_each_step_has_random_numbers_of_its_own_that_depend_on_the_seed():
    def first(plan, step):
        return torch.rand(4, generator=plan.generator(step))

    assert torch.equal(first(PLAN, 3), first(PLAN, 3))
    assert not torch.equal(first(PLAN, 3), first(PLAN, 4))
    assert not torch.equal(first(PLAN, 3), first(Plan(60, 0.05, seed=1), 3))


def test_inspect_sees_the_averaged_weights_at_every_save(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 20)
    seen = []
    trained = train("look", network(), regression, PLAN, tmp_path / "l.pt", lambda net, step: seen.append((step, net)))
    assert [step for step, _ in seen] == [20, 40, 60]
    assert seen[-1][1] is trained
