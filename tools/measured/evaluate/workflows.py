"""The graphs of `make evaluate`: shipped workflows, with what measures them. Nodes go by title."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ....batch.workflow import Workflow, load_workflow
from ... import locations
from ...demo.workflow import node, node_of, node_titled

FOLDER = locations.ROOT / "workflows" / "api"
# What is measured beside the source: the edit, what the VAE alone gives back, and the reconstructions of the paper's
# Fig. 4: by the plain model, by the attention of a STEM inversion, and by FateZero's fusion of attention.
EDIT, VAE, PLAIN, OWN, FUSED = "edit", "VAE", "plain", "own", "fused"
# Small enough that encoding the frames does not need more memory than the inversion, which is what is measured.
_TILE = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}


@dataclass(frozen=True)
class Settings:
    """What all clips and methods share; None for what the shipped workflow has.

    Attributes:
        checkpoint, clip_vision, clip_text, flow: names of files: the model, CLIP's two for the CLIP score, and RAFT's
            weights for the optical flow, without which it is estimated by DIS.
        width, height, frames: of the clips as they are loaded.
        steps, cfg, negative, seed: of inversions and edits.
    """

    checkpoint: str
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    cfg: float | None = None
    negative: str | None = None
    seed: int | None = None
    clip_vision: str | None = None
    clip_text: str | None = None
    flow: str | None = None


def shown(what: str) -> str:
    """The title of the node whose text has the measures of this."""
    return f"Measured: {what}"


def edit_graph(name: str, settings: Settings) -> Workflow:
    """The shipped edit of this name, with its reconstructions, and measures of all."""
    graph = _with_settings(load_workflow(FOLDER / f"{name}.json"), settings)
    add = _adder(graph)
    model, frames = node_titled(graph, "Load Checkpoint"), [node_titled(graph, "Video Load"), 0]
    inversion = node_of(graph, "STEMInversionSampler")
    flow = add("Optical Flow", "STEMVideoFlow", video=frames, method=settings.flow or "DIS")

    def measure(what: str, images: list, **more: object) -> None:
        metrics, _ = add(f"{what} metrics", "STEMVideoMetrics", source=frames, edited=images, flow=flow, **more)
        add(shown(what), "PreviewAny", source=[metrics, 2])

    clip = {}
    if settings.clip_vision and settings.clip_text:
        clip["clip_vision"] = add("Load CLIP Vision", "CLIPVisionLoader", clip_name=settings.clip_vision)
        clip["clip"] = add("Load CLIP", "CLIPLoader", clip_name=settings.clip_text, type="stable_diffusion")
    measure(EDIT, [node_titled(graph, "Decode edit"), 0], target_prompt="", source_prompt="", **clip)

    latents = {VAE: [node_titled(graph, "VAE Encode"), 0]}
    rebuilt = {"inversion": [inversion, 0], "steps": 0}
    attention = graph[graph[inversion]["inputs"]["model"][0]]["class_type"]
    if attention != "STEMFrameContext":
        latents[PLAIN] = add("Reconstruct, plain", "STEMReconstruct", model=[model, 0], **rebuilt)
    if attention == "STEMBases":
        latents[OWN] = add("Reconstruct, own", "STEMReconstruct", **rebuilt)
    if "FateZero Edit" in {entry["_meta"]["title"] for entry in graph.values()}:
        edit = graph[node_titled(graph, "FateZero Edit")]["inputs"]
        same = {"target_prompt": edit["source_prompt"], "negative_prompt": "", "word_weights": "", "preset": "style"}
        latents[FUSED] = add("Reconstruct, fused", "STEMFateZeroEdit", **{**edit, **same, "cfg": 1.0})
    for what, latent in latents.items():
        measure(what, add(f"Decode {what}", "VAEDecode", samples=latent, vae=[model, 2]))
    _save_source(graph)
    return graph


def inversion_graph(name: str, settings: Settings) -> Workflow:
    """The inversion of the shipped edit of this name alone, for its time and memory."""
    graph = _with_settings(load_workflow(FOLDER / f"{name}.json"), settings)
    inversion = node_of(graph, "STEMInversionSampler")
    graph = {number: graph[number] for number in _above(graph, inversion)}
    encode = graph[node_titled(graph, "VAE Encode")]
    encode |= {"class_type": "VAEEncodeTiled", "inputs": encode["inputs"] | _TILE}
    _adder(graph)("Save noisy latent", "SaveLatent", samples=[inversion, 1], filename_prefix="noisy")
    _save_source(graph)
    return graph


def _with_settings(graph: Workflow, settings: Settings) -> Workflow:
    fields = {
        "Video Load": {"width": settings.width, "height": settings.height, "frame_cap": settings.frames},
        "Load Checkpoint": {"ckpt_name": settings.checkpoint},
        "STEM Bases": {"seed": settings.seed},
        "STEM Inversion": {"steps": settings.steps},
        "DDIM Inversion": {"steps": settings.steps},
        "Negative prompt": {"text": settings.negative},
        "TokenFlow Edit": {"cfg": settings.cfg, "seed": settings.seed},
        "FateZero Edit": {"cfg": settings.cfg, "negative_prompt": settings.negative},
    }
    for entry in graph.values():
        wanted = fields.get(entry["_meta"]["title"], {})
        entry["inputs"] |= {field: value for field, value in wanted.items() if value is not None}
    return graph


def _adder(graph: Workflow) -> Callable[..., list]:
    def add(title: str, kind: str, **inputs: object) -> list:
        graph[title] = node(kind, title, **inputs)
        return [title, 0]

    return add


def _save_source(graph: Workflow) -> None:
    """Saves the frames as they were loaded, for the pictures; a clip without a saved video would count as failed."""
    add, load = _adder(graph), node_titled(graph, "Video Load")
    video = add("Create source video", "CreateVideo", images=[load, 0], fps=[load, 1])
    add("Save source video", "SaveVideo", video=video, filename_prefix="video/source", format="auto", codec="auto")


def _above(graph: Workflow, number: str) -> list[str]:
    """A node, and all that it needs."""
    needed = [number]
    for value in graph[number]["inputs"].values():
        if isinstance(value, list):
            needed += _above(graph, value[0])
    return list(dict.fromkeys(needed))
