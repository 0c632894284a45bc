"""What the shipped workflows share: clip, prompts, inversion, reconstruction, saving, and the columns of an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import note_texts
from .graph import Graph, Group, Node, Output

CLIP = "big_buck_bunny.mp4 [example]"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SOURCE = "a fat grey rabbit stretching its arms in front of its burrow, green meadow, sunny day"
NEGATIVE = "blurry, distorted, low quality"

# Sizes leave room for the pictures that the page shows in a node after a run.
CLIP_SIZE = (320, 560)
PREVIEW_SIZE = (270, 300)
# A video is shown below two more fields.
VIDEO_SIZE = (270, 400)
PROMPT_SIZE = (580, 100)
DECODE_SIZE = (240, 0)
JUDGING_SIZE = (270, 150)


@dataclass(frozen=True)
class Start:
    """What every workflow begins with; `text` is the source prompt where it is a node of its own."""

    clip: Node
    checkpoint: Node
    source: Node
    text: Node | None = None


@dataclass(frozen=True)
class Inversion:
    """The nodes that invert. bases: STEM Bases or Frame Context; with neither it is plain DDIM inversion."""

    encode: Node
    bases: Node | None
    sampler: Node


@dataclass(frozen=True)
class Saved:
    """A latent's way to a saved picture."""

    decode: Node
    save: Node


@dataclass(frozen=True)
class Reconstruction:
    """Reconstruct; Save source; and what to compare: the VAE's round trip, and the reconstruction."""

    reconstruct: Node
    source: Node
    round_trip: Saved
    result: Saved


def start(graph: Graph, typed: bool = False) -> Start:
    """The clip, the checkpoint and the source prompt; `typed`: a text of its own, for nodes that read it as well."""
    clip = graph.add("STEMVideoLoad", "Video Load", CLIP_SIZE, file=CLIP, frame_cap=24, width=512, height=512)
    loader = checkpoint(graph)
    if not typed:
        return Start(clip, loader, prompt(graph, loader, "Source prompt", SOURCE))
    text = graph.add("PrimitiveStringMultiline", "Source prompt", PROMPT_SIZE, value=SOURCE)
    return Start(clip, loader, prompt(graph, loader, "Encode source prompt", text), text)


def checkpoint(graph: Graph) -> Node:
    return graph.add("CheckpointLoaderSimple", "Load Checkpoint", (320, 0), ckpt_name=CHECKPOINT)


def prompt(graph: Graph, checkpoint: Node, title: str, text: str | Node) -> Node:
    return graph.add("CLIPTextEncode", title, PROMPT_SIZE, text=text, clip=checkpoint["CLIP"])


def invert(graph: Graph, start: Start, preset: str | None = None, frames: str | None = None) -> Inversion:
    """Inversion through STEM Bases of a preset, through Frame Context with `frames`, or with the bare MODEL."""
    model = start.checkpoint["MODEL"]
    encode = graph.add("VAEEncode", "VAE Encode", pixels=start.clip["images"], vae=start.checkpoint["VAE"])
    bases = None
    if preset:
        bases = graph.add("STEMBases", "STEM Bases", model=model, preset=preset, num_bases=256, seed=0)
    elif frames:
        bases = graph.add("STEMFrameContext", "Frame Context", model=model, frames=frames)
    title, model = "STEM Inversion" if preset else "DDIM Inversion", bases or model
    sampler = graph.add("STEMInversionSampler", title, model=model, positive=start.source, latent=encode, steps=50)
    return Inversion(encode, bases, sampler)


def reconstruct(graph: Graph, start: Start, inversion: Inversion) -> Reconstruction:
    reconstruct = graph.add("STEMReconstruct", "Reconstruct", inversion=inversion.sampler["inversion"])
    source = save(graph, start.clip["images"], "source")
    round_trip = save_latent(graph, start, inversion.encode, "VAE round trip")
    return Reconstruction(reconstruct, source, round_trip, save_latent(graph, start, reconstruct, "reconstruction"))


def save_latent(graph: Graph, start: Start, latent: Node | Output, what: str) -> Saved:
    decode = graph.add("VAEDecode", f"Decode {what}", DECODE_SIZE, samples=latent, vae=start.checkpoint["VAE"])
    return Saved(decode, save(graph, decode, what))


def save(graph: Graph, images: Node | Output, what: str) -> Node:
    prefix = f"{graph.name}/{what.replace(' ', '_')}"
    return graph.add("SaveImage", f"Save {what}", PREVIEW_SIZE, images=images, filename_prefix=prefix)


def video(graph: Graph, start: Start, images: Node) -> tuple[Node, Node]:
    """The frames as a video file with the clip's rate and sound."""
    fps, audio = start.clip["fps"], start.clip["audio"]
    create = graph.add("CreateVideo", "Create Video", DECODE_SIZE, images=images, fps=fps, audio=audio)
    prefix = f"video/{graph.name}"
    return create, graph.add("SaveVideo", "Save Video", VIDEO_SIZE, video=create, filename_prefix=prefix)


def opening(graph: Graph, start: Start, text: str) -> list[Group]:
    """The first column: what the workflow is for, and what it is fed with."""
    purpose = graph.note("What this does", text, (320, 220))
    loading = graph.note("What to load", note_texts.LOADING, (320, 90))
    return [
        Group("Read first", [[purpose]]),
        Group("1 · Clip and checkpoint", [[loading, start.clip, start.checkpoint]]),
    ]


def inversion_group(graph: Graph, inversion: Inversion) -> Group:
    kinds = {"STEMBases": note_texts.STEM_INVERSION, "STEMFrameContext": note_texts.FRAME_INVERSION}
    text = kinds[inversion.bases.kind] if inversion.bases else note_texts.DDIM_INVERSION
    note = graph.note("How it is inverted", text, (270, 180 if inversion.bases else 110))
    left = [inversion.encode, inversion.bases] if inversion.bases else [inversion.encode]
    return Group("3 · Inversion", [left, [inversion.sampler, note]])


@dataclass(frozen=True)
class EditNotes:
    """The texts of the notes of an edit, and how high the last of them is."""

    purpose: str
    prompts: str
    reconstruction: str
    edit: str
    height: int


def edit_columns(
    graph: Graph,
    start: Start,
    inversion: Inversion,
    reconstruction: Reconstruction,
    edit: Node,
    prompts: tuple[str, Sequence[Node]],
    texts: EditNotes,
) -> None:
    """Saves an edit, its mask too where there is one, adds the notes, and groups all nodes.

    prompts: the title of their group, and its nodes.
    """
    masked = edit.kind == "STEMFateZeroEdit"
    edited = save_latent(graph, start, edit["LATENT"] if masked else edit, "edit")
    mask, save_mask = [], []
    if masked:
        mask = [graph.add("MaskToImage", "Mask as picture", DECODE_SIZE, mask=edit["mask"])]
        save_mask = [save(graph, mask[0], "mask")]
    create, save_video = video(graph, start, edited.decode)
    first = opening(graph, start, texts.purpose)
    writing = graph.note("What to write", texts.prompts, (580, 95))
    inverting = inversion_group(graph, inversion)
    judging = graph.note("How to judge it", texts.reconstruction, JUDGING_SIZE)
    steering = graph.note("How to steer it", texts.edit, (270, texts.height))
    back, title = reconstruction, prompts[0]
    decoding = [back.round_trip.decode, back.result.decode]
    going_back = [[back.reconstruct, judging], decoding, [back.source], [back.round_trip.save], [back.result.save]]
    editing = [[edit], [edited.decode, *mask, create, steering], [edited.save, *save_mask], [save_video]]
    graph.columns = [
        first,
        [Group(title, [[writing, *prompts[1]]]), inverting],
        [Group("4 · Reconstruction", going_back), Group("5 · Edit", editing)],
    ]
