"""One sample for each combination of words, drawn by the host's own sampler, and how often it shows what it should."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ....nodes.methods.inversion.inversion import noise_levels
from ....nodes.methods.inversion.sampling import denoise
from ....stem_kernels.ddim import inversion_timesteps
from ...host.loaded_model import Loaded
from ...small_model.rendered_clips import Scene, Thing
from ...small_model.rendered_clips.rendering import SIDE, as_bytes
from ...small_model.rendered_clips.scene import random_scene
from ...small_model.rendered_clips.vocabulary import COLOURS, OBJECTS, STYLES
from ..quality.clips import KINDS, WORDS

BATCH = 16
LATENT = (4, SIDE // 8, SIDE // 8)
ACROSS = 16
SHOWN = 64


def scenes(count: int) -> list[Scene]:
    """Scenes of one thing: every combination of object, style and colour once, in an order of chance, then again."""
    things = [Thing(o, s, c) for o in OBJECTS for s in STYLES for c in COLOURS]
    random.Random(0).shuffle(things)
    found = []
    for number in range(count):
        rng = random.Random(f"card {number}")
        thing = things[number % len(things)]
        background = random_scene(rng, held_out=False).background
        while background.colour == thing.colour:
            background = random_scene(rng, held_out=False).background
        found.append(Scene((thing,), background))
    return found


@torch.inference_mode()
def draw(loaded: Loaded, wanted: Sequence[Scene], steps: int, cfg: float) -> Tensor:
    """A picture of each scene's caption, [n, SIDE, SIDE, 3] in [0, 1]: DDIM from noise seeded by its number."""
    import comfy.samplers

    timesteps = inversion_timesteps(steps)
    sigmas = noise_levels(loaded.model, timesteps).flip(0)
    pictures = []
    for start in tqdm(range(0, len(wanted), BATCH), unit="batch"):
        numbers = range(start, min(start + BATCH, len(wanted)))
        told = torch.cat([loaded.prompt(wanted[n].caption)[0][0] for n in numbers])
        guider = comfy.samplers.CFGGuider(loaded.model)
        guider.set_conds([[told, {}]], loaded.prompt(""))
        guider.set_cfg(cfg)
        noise = [torch.randn(LATENT, generator=torch.Generator().manual_seed(n)) for n in numbers]
        latents = denoise(guider, torch.stack(noise), sigmas, timesteps[::-1], "make card")
        pictures.append(loaded.decode(latents))
    return torch.cat(pictures)


def judged(wanted: Sequence[Scene], seen: Mapping[str, Sequence[str]]) -> dict:
    """Shares of samples that show their words: of each kind, of each object, style and colour, and of all three.

    "trained" and "held_out" hold the same for combinations that training had and had not.
    """
    things = [scene.things[0] for scene in wanted]
    right = {kind: [getattr(t, kind) == word for t, word in zip(things, seen[kind], strict=True)] for kind in KINDS}
    right["all"] = [all(right[kind][n] for kind in KINDS) for n in range(len(things))]

    def shares(numbers: Sequence[int]) -> dict[str, float]:
        return {kind: round(sum(right[kind][n] for n in numbers) / max(1, len(numbers)), 4) for kind in right}

    everything = range(len(things))
    found = {"all": shares(everything)}
    found["trained"] = shares([n for n in everything if not things[n].held_out])
    found["held_out"] = shares([n for n in everything if things[n].held_out])
    for kind in KINDS:
        for word in WORDS[kind]:
            found.setdefault(kind, {})[word] = shares([n for n in everything if getattr(things[n], kind) == word])[kind]
    return found


def sheet(frames: Tensor) -> Image.Image:
    """The first samples as one picture."""
    rows = as_bytes(frames[:SHOWN]).split(ACROSS)
    return Image.fromarray(torch.cat([torch.cat(list(row), dim=1) for row in rows if len(row) == ACROSS]).numpy())


def table(found: Mapping) -> str:
    """The shares to print."""
    lines = [f"{group:10} " + "  ".join(f"{k} {v:.3f}" for k, v in found[group].items()) for group in GROUPS]
    lines += [f"{kind:10} " + "  ".join(f"{word} {share:.2f}" for word, share in found[kind].items()) for kind in KINDS]
    return "\n".join(lines)


GROUPS = ("all", "trained", "held_out")
