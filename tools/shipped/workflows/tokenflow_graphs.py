"""Reconstruction alone, and TokenFlow edits."""

from __future__ import annotations

from . import notes, parts
from .graph import Graph, Group, Node

TARGET = "a fat rabbit carved from white marble stretching its arms in front of its burrow, green meadow, sunny day"
PRESET = "tokenflow"


def reconstruct_first() -> Graph:
    """Invert a clip, reconstruct it, and compare."""
    graph = Graph("reconstruct_first")
    start = parts.start(graph)
    inversion = parts.invert(graph, start, PRESET)
    reconstruct, source, round_trip, result = parts.reconstruct(graph, start, inversion)
    create, save_video = parts.video(graph, start, result.decode)
    judging = graph.note("How to judge it", notes.STEM_RECONSTRUCTION, parts.JUDGING_SIZE)
    graph.columns = [
        parts.opening(graph, start, notes.RECONSTRUCT_FIRST),
        [
            Group("2 · Prompt", [[graph.note("What to write", notes.SOURCE_PROMPT, (580, 88)), start.source]]),
            parts.inversion_group(graph, inversion),
        ],
        [
            Group(
                "4 · Reconstruction",
                [
                    [reconstruct, judging],
                    [round_trip.decode, result.decode, create],
                    [source, round_trip.save],
                    [result.save, save_video],
                ],
            )
        ],
    ]
    return graph


def stem_tokenflow_edit() -> Graph:
    """STEM inversion, reconstruction, TokenFlow editing."""
    return _tokenflow_edit("stem_tokenflow_edit", stem=True)


def ddim_tokenflow_edit() -> Graph:
    """The same with plain DDIM inversion."""
    return _tokenflow_edit("ddim_tokenflow_edit", stem=False)


def _tokenflow_edit(name: str, stem: bool) -> Graph:
    graph = Graph(name)
    start = parts.start(graph)
    target = parts.prompt(graph, start.checkpoint, "Target prompt", TARGET)
    negative = parts.prompt(graph, start.checkpoint, "Negative prompt", parts.NEGATIVE)
    inversion = parts.invert(graph, start, PRESET if stem else None)
    reconstruct, source, round_trip, result = parts.reconstruct(graph, start, inversion)
    edit = _edit(graph, start, inversion, target, negative)
    edited = parts.save_latent(graph, start, edit, "edit")
    create, save_video = parts.video(graph, start, edited.decode)
    opening = parts.opening(graph, start, notes.STEM_EDIT if stem else notes.DDIM_EDIT)
    writing = graph.note("What to write", notes.EDIT_PROMPTS, (580, 95))
    inverting = parts.inversion_group(graph, inversion)
    judging_text = notes.STEM_RECONSTRUCTION if stem else notes.DDIM_RECONSTRUCTION
    judging = graph.note("How to judge it", judging_text, parts.JUDGING_SIZE)
    steering = graph.note("How to steer it", notes.EDIT, (270, 190))
    decoding = [round_trip.decode, result.decode]
    reconstructing = [[reconstruct, judging], decoding, [source], [round_trip.save], [result.save]]
    editing = [[edit], [edited.decode, create, steering], [edited.save], [save_video]]
    graph.columns = [
        opening,
        [Group("2 · Prompts", [[writing, start.source, target, negative]]), inverting],
        [Group("4 · Reconstruction", reconstructing), Group("5 · Edit", editing)],
    ]
    return graph


def _edit(graph: Graph, start: parts.Start, inversion: parts.Inversion, target: Node, negative: Node) -> Node:
    """TokenFlow Edit, on the checkpoint's own model."""
    return graph.add(
        "STEMTokenFlowEdit",
        "TokenFlow Edit",
        model=start.checkpoint["MODEL"],
        inversion=inversion.sampler["INVERSION"],
        positive=target,
        negative=negative,
        cfg=7.5,
        batch_size=8,
        seed=1,
    )
