"""What a clip shows, and its caption."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .vocabulary import COLOURS, OBJECTS, STYLES, TEXTURES, held_out


@dataclass(frozen=True)
class Thing:
    """A moving object: words of the vocabulary."""

    object: str
    style: str
    colour: str

    @property
    def caption(self) -> str:
        article = "an" if self.style[0] in "aeiou" else "a"
        return f"{article} {self.style} {self.colour} {self.object}"

    @property
    def held_out(self) -> bool:
        return held_out(self.object, self.style, self.colour)


@dataclass(frozen=True)
class Background:
    """texture and colour: words of the vocabulary."""

    texture: str
    colour: str

    @property
    def caption(self) -> str:
        return f"a {self.texture} {self.colour} background"


@dataclass(frozen=True)
class Scene:
    """One or two things, the last one in front, on a background."""

    things: tuple[Thing, ...]
    background: Background

    @property
    def caption(self) -> str:
        """For instance "a 3d red apple and a flat blue car on a striped green background"."""
        return " and ".join(thing.caption for thing in self.things) + " on " + self.background.caption

    def with_thing(self, index: int = -1, **words: str) -> Scene:
        """This scene with other words for one of its things."""
        things = list(self.things)
        things[index] = replace(things[index], **words)
        return replace(self, things=tuple(things))


def random_thing(rng: random.Random, held_out: bool = False) -> Thing:
    """A thing of a combination that training knows or, where `held_out`, one that it never sees."""
    while True:
        thing = Thing(rng.choice(OBJECTS), rng.choice(STYLES), rng.choice(tuple(COLOURS)))
        if thing.held_out == held_out:
            return thing


def random_scene(rng: random.Random, things: int = 1, held_out: bool = False) -> Scene:
    """A scene whose background has another colour than its things. held_out: see `random_thing`."""
    chosen = tuple(random_thing(rng, held_out) for _ in range(things))
    taken = {thing.colour for thing in chosen}
    colour = rng.choice([colour for colour in COLOURS if colour not in taken])
    return Scene(chosen, Background(rng.choice(TEXTURES), colour))
