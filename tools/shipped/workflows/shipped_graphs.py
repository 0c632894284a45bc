"""The shipped workflows: reconstruction alone, and TokenFlow and FateZero edits, with STEM and with plain DDIM."""

from __future__ import annotations

from . import common_nodes, note_texts
from .common_nodes import EditNotes
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
    back = common_nodes.reconstruct(graph, start, inversion)
    create, save_video = common_nodes.video(graph, start, back.result.decode)
    judging = graph.note("How to judge it", note_texts.STEM_RECONSTRUCTION, common_nodes.JUDGING_SIZE)
    opening = common_nodes.opening(graph, start, note_texts.RECONSTRUCT_FIRST)
    writing = graph.note("What to write", note_texts.SOURCE_PROMPT, (580, 88))
    inverting = common_nodes.inversion_group(graph, inversion)
    decoding = [back.round_trip.decode, back.result.decode, create]
    saving = [[back.source, back.round_trip.save], [back.result.save, save_video]]
    graph.columns = [
        opening,
        [Group("2 · Prompt", [[writing, start.source]]), inverting],
        [Group("4 · Reconstruction", [[back.reconstruct, judging], decoding, *saving])],
    ]
    return graph


def edit_video_by_text() -> Graph:
    """The whole edit as one node."""
    graph = Graph("edit_video_by_text")
    clip = graph.add("STEMVideoLoad", "Video Load", common_nodes.CLIP_SIZE, file=common_nodes.CLIP)
    checkpoint = common_nodes.checkpoint(graph)
    edit = graph.add(
        "STEMEditVideo",
        "Edit Video by Text",
        (400, 560),
        model=checkpoint["MODEL"],
        clip=checkpoint["CLIP"],
        vae=checkpoint["VAE"],
        video=clip["video"],
        source_prompt=common_nodes.SOURCE,
        target_prompt=MARBLE,
        edit="colour",
    )
    size, prefix = (380, 400), f"video/{graph.name}"
    saved = [
        graph.add("SaveVideo", "Save edited video", size, video=edit["edited"], filename_prefix=prefix),
        graph.add(
            "SaveVideo", "Save side by side", size, video=edit["side by side"], filename_prefix=f"{prefix}_beside"
        ),
    ]
    purpose = graph.note("What this does", note_texts.EDIT_VIDEO, (400, 210))
    graph.columns = [
        [Group("1 · Clip and checkpoint", [[clip, checkpoint]])],
        [Group("2 · Edit", [[edit, purpose]])],
        [Group("3 · Result", [saved])],
    ]
    return graph


def tokenflow_edit(stem: bool) -> Graph:
    """TokenFlow edits a clip that was inverted with STEM, or with plain DDIM."""
    graph = Graph("stem_tokenflow_edit" if stem else "ddim_tokenflow_edit")
    start = common_nodes.start(graph)
    target = common_nodes.prompt(graph, start.checkpoint, "Target prompt", MARBLE)
    negative = common_nodes.prompt(graph, start.checkpoint, "Negative prompt", common_nodes.NEGATIVE)
    inversion = common_nodes.invert(graph, start, "tokenflow" if stem else None)
    reconstruction = common_nodes.reconstruct(graph, start, inversion)
    edit = graph.add(
        "STEMTokenFlowEdit",
        "TokenFlow Edit",
        model=start.checkpoint["MODEL"],
        inversion=inversion.sampler["inversion"],
        positive=target,
        negative=negative,
        cfg=7.5,
        batch_size=8,
        seed=1,
    )
    purpose = note_texts.STEM_EDIT if stem else note_texts.DDIM_EDIT
    judging = note_texts.STEM_RECONSTRUCTION if stem else note_texts.DDIM_RECONSTRUCTION
    texts = EditNotes(purpose, note_texts.EDIT_PROMPTS, judging, note_texts.EDIT, 190)
    prompts = "2 · Prompts", (start.source, target, negative)
    common_nodes.edit_columns(graph, start, inversion, reconstruction, edit, prompts, texts)
    return graph


def fatezero_edit(name: str, purpose: str, target: str, **settings: str) -> Graph:
    """FateZero edits a clip that was inverted with STEM or, as published, with two frames as context."""
    graph = Graph(name)
    start = common_nodes.start(graph, typed=True)
    stem = name.startswith("stem")
    context = {"preset": "paper"} if stem else {"frames": "own and middle frame (2 frames, Eq. 6)"}
    inversion = common_nodes.invert(graph, start, **context)
    reconstruction = common_nodes.reconstruct(graph, start, inversion)
    edit = graph.add(
        "STEMFateZeroEdit",
        "FateZero Edit",
        (400, 900),
        model=start.checkpoint["MODEL"],
        inversion=inversion.sampler["inversion"],
        clip=start.checkpoint["CLIP"],
        source_prompt=start.text,
        target_prompt=target,
        negative_prompt=common_nodes.NEGATIVE,
        **settings,
    )
    judging = note_texts.FATEZERO_RECONSTRUCTION
    texts = EditNotes(purpose, note_texts.FATEZERO_PROMPTS, judging, note_texts.FATEZERO, 230)
    prompts = "2 · Source prompt", (start.text, start.source)
    common_nodes.edit_columns(graph, start, inversion, reconstruction, edit, prompts, texts)
    return graph


def shipped() -> list[Graph]:
    """All of them, in the order of their files."""
    return [
        reconstruct_first(),
        edit_video_by_text(),
        tokenflow_edit(stem=True),
        tokenflow_edit(stem=False),
        fatezero_edit("stem_fatezero_style", note_texts.STEM_FATEZERO_STYLE, PAINTED, **STYLE),
        fatezero_edit("stem_fatezero_object", note_texts.STEM_FATEZERO_OBJECT, BEAR, preset="shape"),
        fatezero_edit("ddim_fatezero_edit", note_texts.DDIM_FATEZERO, PAINTED, **STYLE),
    ]
