"""The shipped workflows: reconstruction alone, and TokenFlow and FateZero edits, with STEM and with plain DDIM."""

from __future__ import annotations

from . import common_nodes, note_texts
from .graph import Graph, Group

MARBLE = "a fat rabbit carved from white marble stretching its arms in front of its burrow, green meadow, sunny day"
PAINTED = f"watercolor painting of {common_nodes.SOURCE}"
BEAR = common_nodes.SOURCE.replace("rabbit", "bear")
STYLE = {"preset": "style", "word_weights": "watercolor: 10"}


def reconstruct_first() -> Graph:
    """Invert a clip, reconstruct it, and compare."""
    graph = Graph("reconstruct_first")
    start = common_nodes.start(graph)
    inversion = common_nodes.invert(graph, start, "tokenflow")
    reconstruct = graph.add("STEMReconstruct", "Reconstruct", common_nodes.EDIT_SIZE, inversion=inversion.result)
    rebuilt = common_nodes.decode(graph, start, reconstruct, "reconstruction")
    round_trip = common_nodes.decode(graph, start, inversion.encode, "VAE round trip")
    metrics = graph.add("STEMVideoMetrics", "Video Metrics", (330, 240), source=round_trip, edited=rebuilt)
    table = graph.add("PreviewAny", "How close it is", (330, 180), source=metrics["table"])
    videos = start.clip["images"], round_trip, rebuilt
    beside = common_nodes.compare(graph, start, "source, VAE round trip, reconstruction", *videos)
    first = common_nodes.opening(graph, start.clip, start.checkpoint, note_texts.RECONSTRUCT_FIRST)
    judging = graph.note("How to judge it", note_texts.RECONSTRUCTION, (380, 150))
    graph.columns = [
        [first],
        [Group("2 · Prompt", [start.source]), Group("3 · Inversion", inversion.nodes)],
        [Group("4 · Reconstruction", [reconstruct, rebuilt, round_trip, metrics, table])],
        [Group("5 · Result", [*beside, judging])],
    ]
    return graph


def edit_video_by_text() -> Graph:
    """The whole edit as one node."""
    graph = Graph("edit_video_by_text")
    clip, checkpoint = common_nodes.clip(graph), common_nodes.checkpoint(graph)
    edit = graph.add(
        "STEMEditVideo",
        "Edit Video by Text",
        (400, 620),
        model=checkpoint["MODEL"],
        clip=checkpoint["CLIP"],
        vae=checkpoint["VAE"],
        video=clip["video"],
        source_prompt=common_nodes.SOURCE,
        target_prompt=MARBLE,
        edit="colour",
    )
    saved = [
        common_nodes.save(graph, "edited video", common_nodes.VIDEO_SIZE, edit["edited"], "edited"),
        common_nodes.save(graph, "side by side", common_nodes.WIDE_VIDEO_SIZE, edit["side by side"], "side_by_side"),
    ]
    graph.columns = [
        [common_nodes.opening(graph, clip, checkpoint, note_texts.EDIT_VIDEO)],
        [Group("2 · Edit", [edit])],
        [Group("3 · Result", saved)],
    ]
    return graph


def tokenflow_edit(stem: bool) -> Graph:
    """TokenFlow edits a clip that was inverted with STEM, or with plain DDIM."""
    graph = Graph("stem_tokenflow_edit" if stem else "ddim_tokenflow_edit")
    start = common_nodes.start(graph)
    target = common_nodes.prompt(graph, start.checkpoint, "Target prompt", MARBLE)
    negative = common_nodes.prompt(graph, start.checkpoint, "Negative prompt", common_nodes.NEGATIVE)
    inversion = common_nodes.invert(graph, start, "tokenflow" if stem else None)
    edit = graph.add(
        "STEMTokenFlowEdit",
        "TokenFlow Edit",
        common_nodes.EDIT_SIZE,
        model=start.checkpoint["MODEL"],
        inversion=inversion.result,
        positive=target,
        negative=negative,
    )
    prompts = "2 · Prompts", (start.source, target, negative)
    texts = note_texts.STEM_EDIT if stem else note_texts.DDIM_EDIT, note_texts.EDIT
    common_nodes.edit_columns(graph, start, inversion, edit, prompts, texts)
    return graph


def fatezero_edit(name: str, purpose: str, target: str, **settings: str) -> Graph:
    """FateZero edits a clip that was inverted with STEM or, as published, with two frames as context."""
    graph = Graph(name)
    start = common_nodes.start(graph, typed=True)
    stem = name.startswith("stem")
    context = {"preset": "paper"} if stem else {"frames": "own and middle frame (2 frames, Eq. 6)"}
    inversion = common_nodes.invert(graph, start, **context)
    edit = graph.add(
        "STEMFateZeroEdit",
        "FateZero Edit",
        (330, 900),
        model=start.checkpoint["MODEL"],
        inversion=inversion.result,
        clip=start.checkpoint["CLIP"],
        source_prompt=start.text,
        target_prompt=target,
        negative_prompt=common_nodes.NEGATIVE,
        **settings,
    )
    prompts = "2 · Source prompt", (start.text, start.source)
    common_nodes.edit_columns(graph, start, inversion, edit, prompts, (purpose, note_texts.FATEZERO))
    return graph


def shipped() -> list[Graph]:
    """All of them, in the order in which a person would try them."""
    return [
        reconstruct_first(),
        edit_video_by_text(),
        tokenflow_edit(stem=True),
        fatezero_edit("stem_fatezero_style", note_texts.STEM_FATEZERO_STYLE, PAINTED, **STYLE),
        fatezero_edit("stem_fatezero_object", note_texts.STEM_FATEZERO_OBJECT, BEAR, preset="shape"),
        tokenflow_edit(stem=False),
        fatezero_edit("ddim_fatezero_edit", note_texts.DDIM_FATEZERO, PAINTED, **STYLE),
    ]
