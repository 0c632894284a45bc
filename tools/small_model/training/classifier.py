"""A small classifier that names object, style and colour of a frame with one thing, to judge edits by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from ..rendered_clips.vocabulary import WORDS
from . import workers
from .frames import Frames
from .loop import Plan, best_device, device_of, mixed_precision, train

WIDTHS = (32, 64, 96, 128)
# Of all workers together.
BATCH = 64
# What a VAE and a denoiser may do to a picture, and a classifier must not be misled by.
NOISE, BRIGHTNESS = 0.04, 0.1
PLAN = Plan(steps=2000, learning_rate=2e-3, warmup=100, ema=0.99)


class Classifier(nn.Module):
    """Frames [n, 3, h, w] in [0, 1] to scores of the words of each kind."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({kind: nn.LazyLinear(len(words)) for kind, words in WORDS.items()})

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        # half size is enough to tell objects apart
        features = self.features(avg_pool2d(frames, 2) - 0.5).flatten(1)
        return {kind: head(features) for kind, head in self.heads.items()}


def loss_of(frames: Frames) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """The loss as a function of the network and a step's random numbers; frames with two things are left out."""
    single = torch.tensor([i for i, scene in enumerate(frames.scenes) if len(scene.things) == 1])
    labels = {
        kind: torch.tensor([words.index(getattr(frames.scenes[i].things[0], kind)) for i in single])
        for kind, words in WORDS.items()
    }

    def loss(network: Classifier, generator: torch.Generator) -> Tensor:
        count = BATCH // workers.count()
        which = torch.randint(len(single), (count,), generator=generator)
        pictures = frames.pictures[single[which]].float() / 255
        shift = (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * BRIGHTNESS
        pictures = pictures + shift + NOISE * torch.randn(pictures.shape, generator=generator)
        device = device_of(network)
        with mixed_precision(device):
            scores = network(pictures.to(device))
        return sum(cross_entropy(scores[kind].float(), labels[kind][which].to(device)) for kind in WORDS)

    return loss


def train_classifier(frames: Frames, folder: Path) -> Classifier:
    """Trains, or goes on with, the classifier."""
    torch.manual_seed(PLAN.seed)
    network = Classifier()
    side = frames.pictures.shape[-1]
    network(torch.zeros(1, 3, side, side))
    return train("classifier", network.to(best_device()), loss_of(frames), PLAN, folder / "classifier.pt")


def load_classifier(file: Path) -> Callable[[Tensor], dict[str, list[str]]]:
    """A function from frames [n, h, w, 3] in [0, 1] to the word of each kind that every frame shows."""
    network = Classifier()
    network.load_state_dict({name: weight.float() for name, weight in load_file(file).items()})
    network.eval()

    @torch.inference_mode()
    def classify(frames: Tensor) -> dict[str, list[str]]:
        scores = network(frames.movedim(-1, 1).float())
        return {kind: [words[i] for i in scores[kind].argmax(dim=1)] for kind, words in WORDS.items()}

    return classify
