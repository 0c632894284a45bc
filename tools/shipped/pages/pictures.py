"""The picture on every help page: what the node makes of a rendered clip with the trained small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from einops import repeat
from PIL import Image
from torch import Tensor

from ....nodes.bases_preview import BasesPreview
from ....nodes.compare_videos import CompareVideos
from ....nodes.feature_pca import FeaturePCA
from ....nodes.methods.attention.frame_context import FrameContextAttention
from ....nodes.methods.attention.installing import install, installed_method
from ....nodes.methods.editing.mask import latent_mask
from ....nodes.methods.fatezero.edit import FateZeroSettings
from ....nodes.methods.fatezero.edit import edit as edit_fatezero
from ....nodes.methods.fatezero.presets import PRESETS as FATEZERO_PRESETS
from ....nodes.methods.fatezero.prompts import read_prompt
from ....nodes.methods.fatezero.word_control import WordWishes, read_words
from ....nodes.methods.inversion.inversion import Inversion
from ....nodes.methods.inversion.reconstruction import reconstruct
from ....nodes.methods.inversion.sampling import invert
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.stem.settings import PRESETS
from ....nodes.methods.tokenflow.edit import TokenFlowSettings
from ....nodes.methods.tokenflow.edit import edit as edit_tokenflow
from ....nodes.metrics.pictures import LABEL_HEIGHT, labelled
from ....nodes.video_flow import VideoFlow
from ....nodes.video_metrics import VideoMetrics
from ....nodes.word_attention import WordAttention
from ....stem_kernels.frame_context import context_frames
from ... import locations
from ...demo.example import CAR, GREEN, MOTION, SCENE, SKETCH
from ...host import loaded_model
from ...small_model.rendered_clips import Scene, render
from ...small_model.rendered_clips.rendering import as_bytes
from ..workflows import templates

FRAMES, STEPS, SHOWN = 8, 20, 4
BASES, CFG = 64, 4.0
PRESET = FATEZERO_PRESETS["shape"]
# The step of the inversion that previews look at, and a decoder layer of the finest resolution.
NOISE, LAYER = 0.3, 13
WORDS = ("striped", "blue")
JPEG_QUALITY = 88


def draw(folder: Path) -> None:
    """Writes <node>.jpg for every node into a folder, and a thumbnail beside every workflow."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        example = Example(loaded_model.load(locations.TRAINED))
        for node, picture in pictures(example):
            _save(picture, folder / f"{node}.jpg")
        for workflow, edited in thumbnails(example):
            middle = torch.stack([example.clip[FRAMES // 2], edited[FRAMES // 2]])
            source, result = repeat(middle, "video h w c -> video (h 2) (w 2) c")
            gap = torch.ones(source.shape[0], 4, 3)
            _save(torch.cat([source, gap, result], dim=1), templates()[workflow].with_suffix(".jpg"))


class Example:
    """The demo's clip, inverted by the trained small model through STEM Bases."""

    def __init__(self, loaded: loaded_model.Loaded) -> None:
        self.loaded = loaded
        rendered = render(SCENE, MOTION, FRAMES)
        self.clip = rendered.frames
        # of the thing and a little around it, [n, h, w]
        self.mask = torch.nn.functional.max_pool2d(rendered.masks[:, None].float(), 9, 1, 4)[:, 0]
        self.inversion = self.inverted(StemSelfAttention.from_settings(PRESETS["paper"].with_bases(BASES)))

    def inverted(self, method: Any) -> Inversion:
        model = install(self.loaded.model, method)
        prompt, latents = self.loaded.prompt(SCENE.caption), self.loaded.encode(self.clip)
        return invert(model, prompt, latents, STEPS, "next")

    def reconstruction(self) -> Tensor:
        return self.loaded.decode(reconstruct(self.inversion, self.inversion.model, self.inversion.source))

    def tokenflow(self, inversion: Inversion, scene: Scene, mask: Tensor | None = None) -> Tensor:
        target, negative = self.loaded.prompt(scene.caption), self.loaded.prompt("")
        free = latent_mask(mask, None, inversion, "make pages")
        settings = TokenFlowSettings(cfg=CFG, cfg_window=PRESET.cfg_window, mask=free)
        return self.loaded.decode(edit_tokenflow(self.loaded.model, inversion, target, negative, settings))

    def masked(self, scene: Scene) -> Tensor:
        """Edited where the thing is, and the clip's own pixels elsewhere."""
        return torch.lerp(self.clip, self.tokenflow(self.inversion, scene, self.mask), self.mask[..., None])

    def fatezero(self, inversion: Inversion, scene: Scene, window: float, **settings: Any) -> tuple[Tensor, Tensor]:
        """The edited video and its mask [n, h, w]."""
        old, new = (read_prompt(self.loaded.clip, one.caption, "a", "make pages") for one in (SCENE, scene))
        masked = settings.get("blend_self", False)
        wishes = WordWishes("auto", window, masks_source=masked, masks_target=masked)
        words = read_words(old, new, wishes, STEPS, "make pages").control
        own = installed_method(inversion.model)
        fused = {"cfg_window": PRESET.cfg_window, "levels": PRESET.levels, "self_window": window, "threshold": 0.6}
        chosen = FateZeroSettings(cfg=CFG, own=own, **fused, **settings)
        found = edit_fatezero(self.loaded.model, inversion, new.conditioning, self.loaded.prompt(""), words, chosen)
        return self.loaded.decode(found.samples), found.mask


def pictures(example: Example) -> Iterator[tuple[str, Tensor]]:
    """Node and picture [h, w, 3]."""
    clip, inversion = example.clip, example.inversion
    rebuilt, edited = example.reconstruction(), example.tokenflow(inversion, CAR)
    (flow,) = VideoFlow.execute(clip).args
    bases, _, _ = BasesPreview.execute(inversion, LAYER, NOISE).args
    components, _, _ = FeaturePCA.execute(inversion, 15, NOISE, flow).args
    _, plot, _ = VideoMetrics.execute(clip, edited, flow=flow).args
    _, slices = CompareVideos.execute(clip, rebuilt, edited, labels="source, reconstruction, edit").args
    replaced, mask = example.fatezero(inversion, CAR, 0.5, blend_self=True, blend_latents=True)
    mask = torch.nn.functional.interpolate(mask[:, None], clip.shape[1:3])[:, 0, ..., None].expand(-1, -1, -1, 3)
    noisy = _noisy(example.loaded, inversion)

    yield "STEMEditVideo", _rows(("source", clip), ("edit", example.tokenflow(inversion, GREEN)))
    yield "STEMVideoLoad", _strip(clip)
    yield "STEMBases", _rows(("source", clip), ("bases", bases))
    yield "STEMFrameContext", _contexts()
    yield "STEMInversionSampler", noisy
    yield "STEMSaveInversion", noisy
    yield "STEMLoadInversion", noisy
    yield "STEMReconstruct", _rows(("source", clip), ("reconstruction", rebuilt))
    yield "STEMTokenFlowEdit", _rows(("source", clip), ("edit", edited))
    yield "STEMFateZeroEdit", _rows(("source", clip), ("edit", replaced), ("mask", mask))
    yield "STEMVideoFlow", _rows(("source", clip[1:]), ("motion", _flow_colours(flow.backward)))
    yield "STEMVideoMetrics", plot[0]
    yield "STEMCompareVideos", slices[0]
    yield "STEMBasesPreview", _rows(("source", clip), ("bases", bases))
    yield "STEMFeaturePCA", _rows(("source", clip), ("components", components))
    yield "STEMWordAttention", _rows(("source", clip), *_attention(example))


def _attention(example: Example) -> Iterator[tuple[str, Tensor]]:
    """Where some words of the clip's prompt are, as large as the clip."""
    clip, prompt = example.loaded.clip, SCENE.caption
    for word in WORDS:
        picture, _, _ = WordAttention.execute(example.inversion, clip, prompt, word, 0.5, 0.3).args
        yield word, repeat(picture[:, LABEL_HEIGHT:], "n h w c -> n (h 2) (w 2) c")


def thumbnails(example: Example) -> Iterator[tuple[str, Tensor]]:
    """Workflow and what it makes of the clip."""
    plain = example.inverted(FrameContextAttention((0, "mid")))
    yield "reconstruct_first", example.reconstruction()
    yield "edit_video_by_text", example.tokenflow(example.inversion, GREEN)
    yield "edit_part_of_video", example.masked(GREEN)
    yield "stem_tokenflow_edit", example.tokenflow(example.inversion, CAR)
    yield "ddim_tokenflow_edit", example.tokenflow(plain, GREEN)
    yield "stem_fatezero_style", example.fatezero(example.inversion, SKETCH, 0.3)[0]
    yield "stem_fatezero_object", example.fatezero(example.inversion, CAR, 0.5, blend_self=True)[0]
    yield "ddim_fatezero_edit", example.fatezero(plain, CAR, 0.5, blend_self=True)[0]


def _save(picture: Tensor, file: Path) -> None:
    Image.fromarray(as_bytes(picture).numpy()).save(file, quality=JPEG_QUALITY)


def _noisy(loaded: loaded_model.Loaded, inversion: Any) -> Tensor:
    """The first frame on its way to noise."""
    shown = [round(share * (len(inversion.timesteps))) for share in (0, 0.25, 0.5, 0.75, 1)]
    latents = inversion.trajectory[shown, 0]
    return _strip(loaded.decode(loaded.model.model.process_latent_out(latents)), len(shown))


def _contexts() -> Tensor:
    """Which frames (columns) a frame (row) reads, for three choices."""
    size, cell = 6, 14
    choices = {"own frame": (0,), "own, middle": (0, "mid"), "all frames": tuple(range(-size, size))}
    grids = []
    for name, references in choices.items():
        grid = torch.full((size, size), 0.9).scatter_(1, context_frames(references, size), 0.25)
        picture = repeat(grid, "row column -> 1 (row h) (column w) c", h=cell, w=cell, c=3).clone()
        picture[:, ::cell] = picture[:, :, ::cell] = 1
        grids.append(labelled(picture, name)[0])
    gap = torch.ones(grids[0].shape[0], 12, 3)
    return torch.cat([part for grid in grids for part in (gap, grid)] + [gap], dim=1)


def _flow_colours(flow: Tensor) -> Tensor:
    """Direction as hue and speed as saturation, [n, h, w, 3]."""
    import kornia

    angle = torch.atan2(flow[..., 1], flow[..., 0]) + torch.pi
    speed = flow.norm(dim=-1)
    saturation = (speed / speed.quantile(0.99).clamp_min(1e-6)).clamp(0, 1)
    hsv = torch.stack([angle, saturation, torch.ones_like(speed)], dim=1)
    return kornia.color.hsv_to_rgb(hsv).movedim(1, -1)


def _rows(*videos: tuple[str, Tensor]) -> Tensor:
    return torch.cat([labelled(_strip(video)[None], name)[0] for name, video in videos])


def _strip(video: Tensor, shown: int = SHOWN) -> Tensor:
    """A few frames in a row."""
    frames = video[torch.linspace(0, len(video) - 1, shown).round().long()]
    return torch.cat(list(frames[..., :3].float()), dim=1)
