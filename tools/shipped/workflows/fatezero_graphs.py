"""FateZero edits: from STEM inversion, and from plain DDIM."""

from __future__ import annotations

from . import notes, parts
from .graph import Graph, Group

PAINTED = f"watercolor painting of {parts.SOURCE}"
BEAR = parts.SOURCE.replace("rabbit", "bear")
EDIT_SIZE = (400, 900)


def stem_fatezero_style() -> Graph:
    """STEM-FateZero: a style is added."""
    style = {"preset": "style", "word_weights": "watercolor: 10"}
    return _fatezero_edit("stem_fatezero_style", True, notes.STEM_FATEZERO_STYLE, PAINTED, **style)


def stem_fatezero_object() -> Graph:
    """STEM-FateZero: one thing becomes another, where it is."""
    return _fatezero_edit("stem_fatezero_object", True, notes.STEM_FATEZERO_OBJECT, BEAR, preset="shape")


def ddim_fatezero_edit() -> Graph:
    """FateZero as published: two frames as context, DDIM inversion."""
    style = {"preset": "style", "word_weights": "watercolor: 10"}
    return _fatezero_edit("ddim_fatezero_edit", False, notes.DDIM_FATEZERO, PAINTED, **style)


def _fatezero_edit(name: str, stem: bool, text: str, target: str, **settings: str) -> Graph:
    graph = Graph(name)
    start = parts.start(graph, typed=True)
    context = {"preset": "paper"} if stem else {"frames": "own and middle frame (2 frames, Eq. 6)"}
    inversion = parts.invert(graph, start, **context)
    reconstruct, source, round_trip, result = parts.reconstruct(graph, start, inversion)
    edit = graph.add(
        "STEMFateZeroEdit",
        "FateZero Edit",
        EDIT_SIZE,
        model=start.checkpoint["MODEL"],
        inversion=inversion.sampler["INVERSION"],
        clip=start.checkpoint["CLIP"],
        source_prompt=start.text,
        target_prompt=target,
        negative_prompt=parts.NEGATIVE,
        **settings,
    )
    edited = parts.save_latent(graph, start, edit["LATENT"], "edit")
    mask = graph.add("MaskToImage", "Mask as picture", parts.DECODE_SIZE, mask=edit["mask"])
    save_mask = parts.save(graph, mask, "mask")
    create, save_video = parts.video(graph, start, edited.decode)
    opening = parts.opening(graph, start, text)
    writing = graph.note("What to write", notes.FATEZERO_PROMPTS, (580, 95))
    inverting = parts.inversion_group(graph, inversion)
    judging = graph.note("How to judge it", notes.FATEZERO_RECONSTRUCTION, parts.JUDGING_SIZE)
    steering = graph.note("How to steer it", notes.FATEZERO, (270, 230))
    decoding = [round_trip.decode, result.decode]
    reconstructing = [[reconstruct, judging], decoding, [source], [round_trip.save], [result.save]]
    editing = [[edit], [edited.decode, mask, create, steering], [edited.save, save_mask], [save_video]]
    graph.columns = [
        opening,
        [Group("2 · Source prompt", [[writing, start.text, start.source]]), inverting],
        [Group("4 · Reconstruction", reconstructing), Group("5 · Edit", editing)],
    ]
    return graph
