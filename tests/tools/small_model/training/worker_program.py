"""One of several workers: trains a small regression and writes the weights that it ends with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn


def main(arguments: list[str]) -> int:
    from comfyui_stem.tools.small_model.training import workers
    from comfyui_stem.tools.small_model.training.loop import Plan, train

    folder = Path(arguments[0])
    workers.join()
    torch.manual_seed(0)
    drawn = []

    def loss(network, generator):
        x = torch.randn(8, 3, generator=generator)
        drawn.append(x[0, 0].item())
        return (network(x) - x @ torch.tensor([[1.0], [-2.0], [0.5]])).square().mean()

    plan = Plan(steps=200, learning_rate=0.05, warmup=5, ema=0.9)
    trained = train("workers", nn.Linear(3, 1, bias=False), loss, plan, folder / "state.pt")
    total = torch.tensor(1.0 + workers.rank())
    workers.sum_in_place(total)
    torch.save({"weight": trained.weight.detach(), "first": drawn[0], "total": total}, folder / f"{workers.rank()}.pt")
    workers.leave()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "tools"))
    import launch

    launch.register_pack()
    sys.exit(main(sys.argv[1:]))
