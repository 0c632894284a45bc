"""The clips that quality is measured on: rendered, with things that training never saw, and the edits asked of them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ...small_model.rendered_clips import Motion, Scene, Thing, random_motion, random_scene
from ...small_model.rendered_clips.vocabulary import COLOURS, OBJECTS, STYLES, WORDS

KINDS = tuple(WORDS)
HELD_OUT = sum(Thing(o, s, c).held_out for o in OBJECTS for s in STYLES for c in COLOURS)


@dataclass(frozen=True)
class Edit:
    """A wish to change one word.

    Attributes:
        kind: "object", "style" or "colour".
        word: what it is to become.
        scene: what the edited clip shows; its caption is the target prompt.
    """

    kind: str
    word: str
    scene: Scene


@dataclass(frozen=True)
class Case:
    """A clip to measure on: number `index`, showing `scene` in `motion`, with its edits."""

    index: int
    scene: Scene
    motion: Motion
    edits: tuple[Edit, ...]


def held_out_cases(count: int, edits: int = 1) -> tuple[Case, ...]:
    """The first `count` cases, each of another held-out combination of words; the same ones for every count.

    edits: 1 to 3 for each clip, of kinds that take turns from clip to clip.

    Raises:
        ValueError: there are not that many held-out combinations.
    """
    if count > HELD_OUT:
        raise ValueError(f"{count} clips were asked for; there are {HELD_OUT} held-out combinations of words.")
    cases, taken = [], set()
    for index in range(count):
        rng = random.Random(f"quality {index}")
        scene = random_scene(rng, held_out=True)
        while scene.things[0] in taken:
            scene = random_scene(rng, held_out=True)
        taken.add(scene.things[0])
        motion = random_motion(rng)
        # all three are drawn, so that asking for more edits leaves the first ones as they are
        wishes = {kind: _edit(rng, scene, kind) for kind in KINDS}
        turn = [KINDS[(index + i) % len(KINDS)] for i in range(edits)]
        cases.append(Case(index, scene, motion, tuple(wishes[kind] for kind in turn)))
    return tuple(cases)


def _edit(rng: random.Random, scene: Scene, kind: str) -> Edit:
    # a thing in the colour of the background could hardly be seen
    banned = {getattr(scene.things[0], kind), *([scene.background.colour] if kind == "colour" else [])}
    word = rng.choice([word for word in WORDS[kind] if word not in banned])
    return Edit(kind, word, scene.with_thing(**{kind: word}))
