"""What the shipped workflows share: clip, prompts, inversion, result, and the groups that they lie in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Graph, Group, Node, Output

CLIP = "big_buck_bunny.mp4 [example]"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SOURCE = "a fat grey rabbit stretching its arms in front of its burrow, green meadow, sunny day"
NEGATIVE = "blurry, distorted, low quality"

# Sizes leave room for the pictures that the page shows in a node after a run.
CLIP_SIZE = (300, 680)
VIDEO_SIZE = (360, 360)
WIDE_VIDEO_SIZE = (360, 320)
PROMPT_SIZE = (360, 90)
NODE_SIZE = (360, 0)
EDIT_SIZE = (330, 0)


@dataclass(frozen=True)
class Start:
    """What every workflow begins with; `text` is the source prompt where it is a node of its own."""

    clip: Node
    checkpoint: Node
    source: Node
    text: Node | None = None


@dataclass(frozen=True)
class Inversion:
    """The nodes that invert, in their order; the last of them is the sampler."""

    nodes: tuple[Node, ...]

    @property
    def result(self) -> Output:
        return self.nodes[-1]["inversion"]

    @property
    def encode(self) -> Node:
        return self.nodes[0]


def clip(graph: Graph) -> Node:
    size = {"frame_cap": 24, "width": 512, "height": 512}
    return graph.add("STEMVideoLoad", "Video Load", CLIP_SIZE, file=CLIP, **size)


def checkpoint(graph: Graph) -> Node:
    return graph.add("CheckpointLoaderSimple", "Load Checkpoint", (300, 0), ckpt_name=CHECKPOINT)


def start(graph: Graph, typed: bool = False) -> Start:
    """The clip, the checkpoint and the source prompt; `typed`: a text of its own, for nodes that read it as well."""
    loaded, loader = clip(graph), checkpoint(graph)
    if not typed:
        return Start(loaded, loader, prompt(graph, loader, "Source prompt", SOURCE))
    text = graph.add("PrimitiveStringMultiline", "Source prompt", PROMPT_SIZE, value=SOURCE)
    return Start(loaded, loader, prompt(graph, loader, "Encode source prompt", text), text)


def prompt(graph: Graph, checkpoint: Node, title: str, text: str | Node) -> Node:
    return graph.add("CLIPTextEncode", title, PROMPT_SIZE, text=text, clip=checkpoint["CLIP"])


def invert(graph: Graph, start: Start, preset: str | None = None, frames: str | None = None) -> Inversion:
    """Inversion through STEM Bases of a preset, through Frame Context with `frames`, or with the bare MODEL."""
    model = start.checkpoint["MODEL"]
    encode = graph.add("VAEEncode", "VAE Encode", NODE_SIZE, pixels=start.clip["images"], vae=start.checkpoint["VAE"])
    bases = ()
    if preset:
        bases = (graph.add("STEMBases", "STEM Bases", NODE_SIZE, model=model, preset=preset),)
    elif frames:
        bases = (graph.add("STEMFrameContext", "Frame Context", NODE_SIZE, model=model, frames=frames),)
    inputs = {"model": bases[0] if bases else model, "positive": start.source, "latent": encode, "steps": 50}
    title = "STEM Inversion" if preset else "DDIM Inversion"
    return Inversion((encode, *bases, graph.add("STEMInversionSampler", title, NODE_SIZE, **inputs)))


def decode(graph: Graph, start: Start, latent: Node | Output, what: str) -> Node:
    return graph.add("VAEDecode", f"Decode {what}", EDIT_SIZE, samples=latent, vae=start.checkpoint["VAE"])


def save_video(graph: Graph, start: Start, images: Node | Output, what: str, size: tuple[int, int]) -> list[Node]:
    """The frames as a video file with the clip's rate and sound."""
    fps, audio = start.clip["fps"], start.clip["audio"]
    create = graph.add("CreateVideo", f"Create {what}", NODE_SIZE, images=images, fps=fps, audio=audio)
    return [create, save(graph, what, size, create, what.replace(" ", "_"))]


def save(graph: Graph, what: str, size: tuple[int, int], video: Node | Output, name: str) -> Node:
    """name: what the file's name ends with."""
    return graph.add("SaveVideo", f"Save {what}", size, video=video, filename_prefix=f"video/{graph.name}_{name}")


def compare(graph: Graph, start: Start, labels: str, *videos: Node | Output) -> list[Node]:
    """Videos beside each other, saved with sound."""
    places = dict(zip(("first", "second", "third"), videos, strict=False))
    beside = graph.add("STEMCompareVideos", "Compare Videos", NODE_SIZE, **places, labels=labels)
    return [beside, *save_video(graph, start, beside["comparison"], "side by side", WIDE_VIDEO_SIZE)]


def edit_by_text(graph: Graph, clip: Node, checkpoint: Node, target: str, **inputs: Node) -> tuple[Node, list[Node]]:
    """Edit Video by Text, and the nodes that save what it makes."""
    edit = graph.add(
        "STEMEditVideo",
        "Edit Video by Text",
        (400, 620),
        model=checkpoint["MODEL"],
        clip=checkpoint["CLIP"],
        vae=checkpoint["VAE"],
        video=clip["video"],
        source_prompt=SOURCE,
        target_prompt=target,
        edit="colour",
        **inputs,
    )
    return edit, [
        save(graph, "edited video", VIDEO_SIZE, edit["edited"], "edited"),
        save(graph, "side by side", WIDE_VIDEO_SIZE, edit["side by side"], "side_by_side"),
    ]


def opening(graph: Graph, clip: Node, checkpoint: Node, purpose: str) -> Group:
    """The first group: what the workflow is for, and what it is fed with."""
    return Group("1 · Checkpoint and clip", [graph.note("What this does", purpose, (300, 250)), checkpoint, clip])


def edit_columns(
    graph: Graph,
    start: Start,
    inversion: Inversion,
    edit: Node,
    prompts: tuple[str, Sequence[Node]],
    texts: tuple[str, str],
) -> None:
    """Saves an edit, alone and beside its source, adds the notes, and groups all nodes.

    prompts: the title of their group, and its nodes. texts: what the workflow is for, and how to steer the edit.
    """
    masked = edit.kind == "STEMFateZeroEdit"
    edited = decode(graph, start, edit["LATENT"] if masked else edit, "edit")
    shown = [edited]
    if masked:
        mask = graph.add("MaskToImage", "Mask as image", EDIT_SIZE, mask=edit["mask"])
        shown += [mask, graph.add("PreviewImage", "Preview mask", (330, 240), images=mask)]
    saved = save_video(graph, start, edited, "edited video", VIDEO_SIZE)
    beside = compare(graph, start, "source, edit", start.clip["images"], edited)
    first = opening(graph, start.clip, start.checkpoint, texts[0])
    steering = graph.note("How to adjust it", texts[1], (330, 240))
    graph.columns = [
        [first],
        [Group(prompts[0], prompts[1]), Group("3 · Inversion", inversion.nodes)],
        [Group("4 · Edit", [edit, *shown, steering])],
        [Group("5 · Result", [*saved, *beside])],
    ]
