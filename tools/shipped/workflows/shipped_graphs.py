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
    graph = Graph("reconstruct_first", "1 Reconstruct first")
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
    judging = graph.note("How to judge it", note_texts.RECONSTRUCTION, (360, 160))
    graph.columns = [
        [first],
        [Group("2 · Prompt", [start.source]), Group("3 · Inversion", inversion.nodes)],
        [Group("4 · Reconstruction", [reconstruct, rebuilt, round_trip, metrics, table])],
        [Group("5 · Result", [*beside, judging])],
    ]
    return graph


def edit_video_by_text() -> Graph:
    """The whole edit as one node."""
    graph = Graph("edit_video_by_text", "2 Edit Video by Text")
    clip, checkpoint = common_nodes.clip(graph), common_nodes.checkpoint(graph)
    edit, saved = common_nodes.edit_by_text(graph, clip, checkpoint, MARBLE)
    graph.columns = [
        [common_nodes.opening(graph, clip, checkpoint, note_texts.EDIT_VIDEO)],
        [Group("2 · Edit", [edit])],
        [Group("3 · Result", saved)],
    ]
    return graph


def edit_part_of_video() -> Graph:
    """The same, only where a mask is white: a rectangle with soft edges, in place of which any mask may stand."""
    graph = Graph("edit_part_of_video", "3 Edit part of a video")
    clip, checkpoint = common_nodes.clip(graph), common_nodes.checkpoint(graph)
    size = (400, 0)
    picture = graph.add("SolidMask", "Whole picture", size, value=0.0, width=512, height=512)
    part = graph.add("SolidMask", "Part to edit", size, value=1.0, width=320, height=450)
    soft = graph.add("FeatherMask", "Soft edges", size, mask=part, left=0, top=0, right=32, bottom=32)
    place = {"x": 0, "y": 0, "operation": "add"}
    mask = graph.add("MaskComposite", "Mask", size, destination=picture, source=soft, **place)
    seen = graph.add("MaskToImage", "Mask as image", size, mask=mask)
    preview = graph.add("PreviewImage", "Preview mask", (400, 260), images=seen)
    about = graph.note("Other masks", note_texts.MASKS, (400, 170))
    edit, saved = common_nodes.edit_by_text(graph, clip, checkpoint, MARBLE, mask=mask)
    graph.columns = [
        [common_nodes.opening(graph, clip, checkpoint, note_texts.EDIT_PART)],
        [Group("2 · Edit", [edit]), Group("3 · Where to edit", [about, picture, part, soft, mask, seen, preview])],
        [Group("4 · Result", saved)],
    ]
    return graph


def tokenflow_edit(stem: bool) -> Graph:
    """TokenFlow edits a clip that was inverted with STEM, or with plain DDIM."""
    graph = (
        Graph("stem_tokenflow_edit", "4 TokenFlow edit")
        if stem
        else Graph("ddim_tokenflow_edit", "7 Compare, TokenFlow edit without STEM")
    )
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


def fatezero_edit(name: str, title: str, purpose: str, target: str, **settings: str) -> Graph:
    """FateZero edits a clip that was inverted with STEM or, as published, with two frames as context."""
    graph = Graph(name, title)
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
        edit_part_of_video(),
        tokenflow_edit(stem=True),
        fatezero_edit(
            "stem_fatezero_style", "5 FateZero edit, a style", note_texts.STEM_FATEZERO_STYLE, PAINTED, **STYLE
        ),
        fatezero_edit(
            "stem_fatezero_object", "6 FateZero edit, an object", note_texts.STEM_FATEZERO_OBJECT, BEAR, preset="shape"
        ),
        tokenflow_edit(stem=False),
        fatezero_edit(
            "ddim_fatezero_edit", "8 Compare, FateZero as published", note_texts.DDIM_FATEZERO, PAINTED, **STYLE
        ),
    ]
