"""Does one item of the plan: inverts a clip, reconstructs and edits it, and measures what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from ....nodes.methods.inversion.inversion import Inversion
from ....nodes.methods.inversion.reconstruction import reconstruct
from ....nodes.methods.inversion.sampling import invert
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.tokenflow.edit import TokenFlowSettings, edit
from ....nodes.metrics.closeness import psnr
from ...host.loaded_model import Loaded
from ...small_model.rendered_clips import Clip, render
from . import fatezero
from .clips import Edit
from .em_health import ObservedFitting
from .frames_on_disk import save_frames
from .measures import Classifier, appearance, closeness, edit_measures, mask_measures
from .methods import installed, method_of
from .plan import EditorItem, Item, Settings
from .variants import DEFAULT

# Two keyframes or more, or nothing would tie the edit's frames together: the default of 8 is a whole clip here.
FRAMES_PER_KEYFRAME = 4
# What suits the small model; more guidance brightens colours and moves the background.
EDIT_CFG = 4.0
# In which TokenFlow Edit differs from TokenFlowSettings; what FateZero Edit has is in its presets.
TOKENFLOW_SHIPPED: Mapping[str, Any] = {"cfg_window": (0.0, 0.75)}


@dataclass(frozen=True)
class Source:
    """A clip before any edit.

    Attributes:
        clip: as rendered.
        latents: LATENT samples [N, 4, h, w] of its frames.
        round_trip: what the VAE gives back of them, [N, H, W, 3].
    """

    clip: Clip
    latents: Tensor
    round_trip: Tensor


@dataclass(frozen=True)
class Runner:
    """Runs items with a loaded checkpoint.

    A result is {"measured": [{"editor", "denoiser", "cfg", "edit", "metrics": {name: number}, ...}]}.
    """

    loaded: Loaded
    settings: Settings
    classify: Classifier | None
    pictures: Path
    _last: dict[int, Source] = field(default_factory=dict)
    _inversions: dict[tuple, Inversion] = field(default_factory=dict)

    @torch.inference_mode()
    def __call__(self, item: Item) -> dict:
        source = self._source(item)
        measured = {
            "reference": self._references,
            "variant": self._variant,
            "health": self._health,
            "setting": self._setting,
        }[item.kind]
        return {"measured": list(measured(item, source))}

    def _references(self, item: Item, source: Source) -> Iterator[dict]:
        """What no inversion could do better, or any could do as well: bounds for the other numbers."""
        clip, round_trip = source.clip, source.round_trip
        yield _measured("vae", metrics=_against(round_trip, clip.frames, "source"))
        self._keep(item, "source", clip.frames)
        for wish, truth in self._wishes(item) if item.edited else ():
            self._keep(item, f"truth_{wish.kind}", truth.frames)
            metrics = appearance(truth.frames, truth, wish.kind, self.classify)
            yield _measured("truth", edit=wish.kind, metrics=metrics)
            for name, video in (
                ("truth through the VAE", self._round_trip(truth.frames)),
                ("no edit", round_trip),
            ):
                metrics = edit_measures(video, truth, clip.masks, wish.kind, self.classify)
                yield _measured(name, edit=wish.kind, metrics=metrics)

    def _variant(self, item: Item, source: Source) -> Iterator[dict]:
        model = installed(self.loaded.model, method_of(item.variant, item.seed))
        inversion = self._invert(model, item, source)
        yield from self._reconstructions(item, source, inversion, model)
        if item.edited:
            yield from self._edits(item, source, inversion)

    def _reconstructions(self, item: Item, source: Source, inversion: Inversion, model: Any) -> Iterator[dict]:
        """With the attention of the inversion ("same") and with the model as it is ("plain")."""
        clip, round_trip = source.clip, source.round_trip
        negative = self.loaded.prompt("")
        denoisers = {"plain": self.loaded.model} | ({} if item.variant.plain else {"same": model})
        for denoiser, used in denoisers.items():
            for cfg in item.scales:
                latents = reconstruct(inversion, used, inversion.source, negative, cfg)
                video = self.loaded.decode(latents)
                metrics = _against(video, round_trip, "vae") | _against(video, clip.frames, "source")
                by_frame = [round(value, 3) for value in psnr(video, round_trip).tolist()]
                yield _measured("none", denoiser=denoiser, cfg=cfg, metrics=metrics, psnr_by_frame=by_frame)
                self._keep(item, f"reconstruction_{denoiser}_{cfg:g}", video)

    def _edits(self, item: Item, source: Source, inversion: Inversion) -> Iterator[dict]:
        editors = {
            "tokenflow": self._tokenflow,
            "tokenflow_stem": self._tokenflow_with_stem,
            "fatezero": self._fatezero,
        }
        for wish, truth in self._wishes(item):
            for editor in item.editors:
                video = self.loaded.decode(editors[editor](item, inversion, wish))
                metrics = edit_measures(video, truth, source.clip.masks, wish.kind, self.classify)
                yield _measured(editor, cfg=EDIT_CFG, edit=wish.kind, metrics=metrics)
                self._keep(item, f"{editor}_{wish.kind}", video)

    def _tokenflow(
        self,
        item: Item,
        inversion: Inversion,
        wish: Edit,
        stem: StemSelfAttention | None = None,
        changes: Mapping[str, Any] = TOKENFLOW_SHIPPED,
    ) -> Tensor:
        settings = TokenFlowSettings(cfg=EDIT_CFG, seed=item.seed, batch_size=FRAMES_PER_KEYFRAME, stem=stem)
        settings = replace(settings, **changes)
        target, negative = self.loaded.prompt(wish.scene.caption), self.loaded.prompt("")
        return edit(self.loaded.model, inversion, target, negative, settings)

    def _tokenflow_with_stem(self, item: Item, inversion: Inversion, wish: Edit) -> Tensor:
        """Keyframes read bases of all of them; those of an inversion without STEM as many as the default has."""
        bases = item.variant if item.variant.inversion == "stem" else DEFAULT
        return self._tokenflow(item, inversion, wish, method_of(bases, item.seed))

    def _fatezero(self, item: Item, inversion: Inversion, wish: Edit) -> Tensor:
        return fatezero.edited(self.loaded, inversion, item.case.scene.caption, wish, EDIT_CFG)

    def _setting(self, item: EditorItem, source: Source) -> Iterator[dict]:
        setting = item.setting
        inversion = self._last_inversion(item, source)
        for wish, truth in self._wishes(item):
            changes = dict(setting.changes)
            masked = changes.pop("masked", None)
            if masked:
                # of the thing, and a latent pixel around it, as one would grow what a segmentation gives
                mask = max_pool2d(source.clip.masks[:, None].float(), 17, 1, 8)[:, 0]
            if masked in ("latents", "pixels"):
                changes["mask"] = interpolate(mask[:, None], inversion.size, mode="area")[:, 0]
            if setting.editor == "tokenflow":
                latents = self._tokenflow(item, inversion, wish, changes=changes)
            else:
                latents = fatezero.edited(self.loaded, inversion, item.case.scene.caption, wish, EDIT_CFG, changes)
            video = self.loaded.decode(latents)
            if masked == "pixels":
                video = torch.lerp(source.clip.frames, video, mask[..., None])
            metrics = edit_measures(video, truth, source.clip.masks, wish.kind, self.classify)
            if masked:
                metrics |= mask_measures(video, source.clip, truth, mask)
            yield _measured(setting.editor, edit=wish.kind, metrics=metrics)

    def _wishes(self, item: Item) -> Iterator[tuple[Edit, Clip]]:
        """The edits of the item's clip, each with the true edited clip."""
        for wish in item.case.edits:
            yield wish, render(wish.scene, item.case.motion, self.settings.frames)

    def _last_inversion(self, item: EditorItem, source: Source) -> Inversion:
        """The item's inversion; the last one is kept, because settings of one inversion follow each other."""
        wanted = (item.case.index, item.variant, item.seed, item.setting.steps)
        if wanted not in self._inversions:
            self._inversions.clear()
            model = installed(self.loaded.model, method_of(item.variant, item.seed))
            self._inversions[wanted] = self._invert(model, item, source, item.setting.steps)
        return self._inversions[wanted]

    def _health(self, item: Item, source: Source) -> Iterator[dict]:
        method = method_of(item.variant, item.seed)
        observed = ObservedFitting(method.settings)
        self._invert(installed(self.loaded.model, replace(method, fitting=observed)), item, source)
        yield from ({"health": entry} for entry in observed.log)

    def _invert(self, model: Any, item: Item, source: Source, steps: int = 0) -> Inversion:
        prompt = self.loaded.prompt(item.case.scene.caption)
        return invert(model, prompt, source.latents, steps or self.settings.steps, item.variant.convention)

    def _source(self, item: Item) -> Source:
        """The item's clip; the last one is kept, because items of one clip follow each other."""
        index = item.case.index
        if index not in self._last:
            clip = render(item.case.scene, item.case.motion, self.settings.frames)
            latents = self.loaded.encode(clip.frames)
            self._last.clear()
            self._last[index] = Source(clip, latents, self.loaded.decode(latents))
        return self._last[index]

    def _round_trip(self, video: Tensor) -> Tensor:
        return self.loaded.decode(self.loaded.encode(video))

    def _keep(self, item: Item, name: str, video: Tensor) -> None:
        if item.shown:
            save_frames(self.pictures / f"{item.key(self.settings)}_{name}.png", video)


def _measured(editor: str, **more: Any) -> dict:
    return {"editor": editor, "denoiser": None, "cfg": None, "edit": None} | more


def _against(video: Tensor, truth: Tensor, name: str) -> dict[str, float]:
    return {f"{metric}_vs_{name}": value for metric, value in closeness(video, truth).items()}
