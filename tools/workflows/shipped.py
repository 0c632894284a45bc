"""The workflows that the pack ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import notes
from .graph import Graph, Group, Node, Output

CLIP = "big_buck_bunny.mp4"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SOURCE = "a fat grey rabbit stretching its arms in front of its burrow, green meadow, sunny day"
TARGET = "a fat rabbit carved from white marble stretching its arms in front of its burrow, green meadow, sunny day"
NEGATIVE = "blurry, distorted, low quality"

# Sizes leave room for the pictures that the page shows in a node after a run.
CLIP_SIZE = (320, 560)
PREVIEW_SIZE = (270, 300)
PROMPT_SIZE = (580, 100)
DECODE_SIZE = (240, 0)
JUDGING_SIZE = (270, 150)


@dataclass(frozen=True)
class Start:
    """What every workflow begins with."""

    clip: Node
    checkpoint: Node
    source: Node

    @property
    def vae(self) -> Output:
        """The checkpoint's VAE."""
        return self.checkpoint["VAE"]


@dataclass(frozen=True)
class Inversion:
    """The nodes that invert; without bases it is plain DDIM inversion."""

    encode: Node
    bases: Node | None
    sampler: Node


@dataclass(frozen=True)
class Saved:
    """A latent's way to a saved picture."""

    decode: Node
    save: Node


def reconstruct_first() -> Graph:
    """Invert a clip, reconstruct it, and compare."""
    graph = Graph("reconstruct_first")
    start = _start(graph)
    inversion = _invert(graph, start, stem=True)
    reconstruct, source, round_trip, result = _reconstruct(graph, start, inversion)
    create, save_video = _video(graph, start, result.decode)
    judging = graph.note("How to judge it", notes.STEM_RECONSTRUCTION, JUDGING_SIZE)
    graph.columns = [
        _opening(graph, start, notes.RECONSTRUCT_FIRST),
        [
            Group("2 · Prompt", [[graph.note("What to write", notes.SOURCE_PROMPT, (580, 88)), start.source]]),
            _inversion_group(graph, inversion),
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


SHIPPED: tuple[Callable[[], Graph], ...] = (reconstruct_first, stem_tokenflow_edit, ddim_tokenflow_edit)


def _tokenflow_edit(name: str, stem: bool) -> Graph:
    graph = Graph(name)
    start = _start(graph)
    target = _prompt(graph, start.checkpoint, "Target prompt", TARGET)
    negative = _prompt(graph, start.checkpoint, "Negative prompt", NEGATIVE)
    inversion = _invert(graph, start, stem)
    reconstruct, source, round_trip, result = _reconstruct(graph, start, inversion)
    edit = _edit(graph, start, inversion, target, negative)
    edited = _save_latent(graph, start, edit, "edit")
    create, save_video = _video(graph, start, edited.decode)
    opening = _opening(graph, start, notes.STEM_EDIT if stem else notes.DDIM_EDIT)
    writing = graph.note("What to write", notes.EDIT_PROMPTS, (580, 95))
    inverting = _inversion_group(graph, inversion)
    judging_text = notes.STEM_RECONSTRUCTION if stem else notes.DDIM_RECONSTRUCTION
    judging = graph.note("How to judge it", judging_text, JUDGING_SIZE)
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


def _start(graph: Graph) -> Start:
    clip = graph.add("STEMVideoLoad", "Video Load", CLIP_SIZE, file=CLIP, frame_cap=24, width=512, height=512)
    checkpoint = graph.add("CheckpointLoaderSimple", "Load Checkpoint", (320, 0), ckpt_name=CHECKPOINT)
    return Start(clip, checkpoint, _prompt(graph, checkpoint, "Source prompt", SOURCE))


def _prompt(graph: Graph, checkpoint: Node, title: str, text: str) -> Node:
    return graph.add("CLIPTextEncode", title, PROMPT_SIZE, text=text, clip=checkpoint["CLIP"])


def _invert(graph: Graph, start: Start, stem: bool) -> Inversion:
    model = start.checkpoint["MODEL"]
    encode = graph.add("VAEEncode", "VAE Encode", pixels=start.clip["images"], vae=start.vae)
    bases = graph.add("STEMBases", "STEM Bases", model=model, preset="paper", num_bases=256, seed=0) if stem else None
    sampler = graph.add(
        "STEMInversionSampler",
        "STEM Inversion" if stem else "DDIM Inversion",
        model=bases or model,
        positive=start.source,
        latent=encode,
        steps=50,
    )
    return Inversion(encode, bases, sampler)


def _reconstruct(graph: Graph, start: Start, inversion: Inversion) -> tuple[Node, Node, Saved, Saved]:
    """Reconstruct; Save source; and what to compare: the VAE's round trip, and the reconstruction."""
    reconstruct = graph.add("STEMReconstruct", "Reconstruct", inversion=inversion.sampler["INVERSION"])
    source = _save(graph, start.clip["images"], "source")
    round_trip = _save_latent(graph, start, inversion.encode, "VAE round trip")
    return reconstruct, source, round_trip, _save_latent(graph, start, reconstruct, "reconstruction")


def _edit(graph: Graph, start: Start, inversion: Inversion, target: Node, negative: Node) -> Node:
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


def _save_latent(graph: Graph, start: Start, latent: Node, what: str) -> Saved:
    decode = graph.add("VAEDecode", f"Decode {what}", DECODE_SIZE, samples=latent, vae=start.vae)
    return Saved(decode, _save(graph, decode, what))


def _save(graph: Graph, images: Node | Output, what: str) -> Node:
    prefix = f"{graph.name}/{what.replace(' ', '_')}"
    return graph.add("SaveImage", f"Save {what}", PREVIEW_SIZE, images=images, filename_prefix=prefix)


def _video(graph: Graph, start: Start, images: Node) -> tuple[Node, Node]:
    """The frames as a video file with the clip's rate and sound."""
    fps, audio = start.clip["fps"], start.clip["audio"]
    create = graph.add("CreateVideo", "Create Video", DECODE_SIZE, images=images, fps=fps, audio=audio)
    prefix = f"video/{graph.name}"
    return create, graph.add("SaveVideo", "Save Video", PREVIEW_SIZE, video=create, filename_prefix=prefix)


def _opening(graph: Graph, start: Start, text: str) -> list[Group]:
    """The first column: what the workflow is for, and what it is fed with."""
    purpose = graph.note("What this does", text, (320, 220))
    loading = graph.note("What to load", notes.LOADING, (320, 90))
    return [
        Group("Read first", [[purpose]]),
        Group("1 · Clip and checkpoint", [[loading, start.clip, start.checkpoint]]),
    ]


def _inversion_group(graph: Graph, inversion: Inversion) -> Group:
    text = notes.STEM_INVERSION if inversion.bases else notes.DDIM_INVERSION
    note = graph.note("How it is inverted", text, (270, 180 if inversion.bases else 110))
    left = [inversion.encode, inversion.bases] if inversion.bases else [inversion.encode]
    return Group("3 · Inversion", [left, [inversion.sampler, note]])
