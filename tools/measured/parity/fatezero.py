"""FateZero: inversions and whole edits, with what the published code does differently from the paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ....nodes.methods.attention.frame_context import FrameContextAttention
from ....nodes.methods.attention.installing import install
from ....nodes.methods.fatezero.edit import FateZeroGuider, FateZeroSettings
from ....nodes.methods.fatezero.word_control import WordControl
from ....nodes.methods.inversion.guidance import StepSchedule
from ....nodes.methods.inversion.inversion import Inversion
from ....nodes.methods.inversion.sampling import invert
from ....stem_kernels.cross_control import refined, replaced
from ....stem_kernels.prompt_alignment import RefineAlignment
from . import golden
from .comparison import Comparison, compared, share_that_differs
from .pooled_norm import pooled_group_norm

INVERSION, EDIT = 1e-4, 1e-3
STEPS = 10
# "A few pixels" of a mask whose threshold a pixel may just meet.
MASK = 2e-3
MASK_SIDES = (20, 10, 5)


class Published(FateZeroGuider):
    """The guider with the quirks of the published latent blend, which also keeps what it computed.

    The source latent that it blends with is one step noisier than the edit; the mask of the target reads the sum of
    all steps so far, that of the source one step; the window is open at both ends.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.target_sum: Tensor | float = 0.0
        self.latents: dict[int, Tensor] = {}
        self.self_masks: dict[tuple[int, tuple[int, int]], Tensor] = {}
        self.latent_masks: dict[int, tuple[Tensor, Tensor]] = {}
        self.step = 0

    @property
    def _accumulates(self) -> bool:
        # Attention of the target is noted in every step.
        return self.settings.blend_latents

    def blends_latents(self, step: int) -> bool:
        return self.settings.blend_latents and self.latent_steps.start < step + 1 < self.latent_steps.stop

    def source_latent(self, timestep: int) -> Tensor:
        return self.inversion.trajectory[self.inversion.entry(timestep)]

    def predict(self, timestep: int, *args: Any) -> list[Tensor]:
        self.step = self.schedule.number(timestep)
        return super().predict(timestep, *args)

    def latent_attention(self, source: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if target is None:
            return source, None
        self.target_sum = self.target_sum + target
        size = self.inversion.size
        union = self._latent_mask(source, self.target_sum, size)
        self.latent_masks[self.step] = self._mask(source, size), union
        return source, self.target_sum

    def keep_own(self, attention: Tensor, size: tuple[int, int]) -> Tensor:
        mask = super().keep_own(attention, size)
        self.self_masks[self.step, size] = mask[..., 0]
        return mask

    def after_move(self, x: Tensor, timestep: int, sigma: Tensor) -> Tensor:
        x = super().after_move(x, timestep, sigma)
        self.latents[self.step] = x / (1 + sigma**2) ** 0.5
        return x


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Every recorded inversion, and the edits that start from it."""
    print("fatezero: group normalisation is pooled over the frames, as in the published UNet")
    runs, recorded, model = golden.settings(folder, "fatezero"), golden.arrays(folder, "fatezero"), golden.model(folder)
    for name, run in runs.items():
        if not name.startswith("inv."):
            continue
        config = run["model_config"]
        references = tuple(config.get("SparseCausalAttention_index", (-1, "first")))
        # `least_sc_channel` 64 leaves the finest level of this UNet to its own frame.
        method = FrameContextAttention(references, finest_level=int(config.get("least_sc_channel", 0) >= 64))
        with pooled_group_norm(model.model.diffusion_model, len(recorded["clip"])):
            samples = golden.to_samples(model, recorded["clip"])
            source = [[recorded["text.embeds.source"], {}]]
            inversion = invert(install(model, method), source, samples, STEPS, "next")
            rows = [inversion.entry(t) for t in run["stored_timesteps"]]
            ours = inversion.trajectory[rows]
            yield compared(f"fatezero {name} inversion", ours, recorded[f"{name}.traj"], INVERSION)
            for edit in (key for key in runs if key.startswith(f"edit.{name.removeprefix('inv.')}.")):
                yield from _edited(folder, edit, runs[edit], inversion, method)


def _words(recorded: dict[str, Tensor], name: str, config: dict) -> WordControl:
    """The recorded mapper, alphas and equalizer; the group `text` compares ours with them."""
    mapper, alphas, equalizer = (recorded.get(f"{name}.{part}") for part in ("mapper", "alphas", "equalizer"))
    # "a silver jeep" and "a Porsche car": a token for each word, after the start token and "a"
    blended = (2, 3) if config.get("blend_words") else ()
    return WordControl(
        alpha=recorded[f"{name}.cross_alpha"].float(),
        mapping=replaced(mapper[0]) if alphas is None else refined(RefineAlignment(mapper[0], alphas[0])),
        factors=torch.ones(mapper.shape[-1]) if equalizer is None else equalizer[0],
        source_words=blended,
        target_words=blended,
    )


def _edited(
    folder: Path, name: str, run: dict, inversion: Inversion, method: FrameContextAttention
) -> Iterator[Comparison]:
    recorded, prompts = golden.arrays(folder, "fatezero"), golden.settings(folder, "fatezero")["prompts"]
    config = run["config"]
    window = config["self_replace_steps"]
    settings = FateZeroSettings(
        self_window=tuple(window) if isinstance(window, list) else window,
        blend_self=config.get("blend_self_attention", False),
        blend_latents=config.get("blend_latents", False),
        threshold=config.get("blend_th", [0.3])[0],
        own=method,
    )
    schedule = StepSchedule(inversion.timesteps, len(inversion.timesteps))
    guider = Published(golden.model(folder), inversion, _words(recorded, name, config), settings, schedule)
    (target,) = (key for key, text in prompts.items() if text == run["prompt"])
    positive, negative = ([[recorded[f"text.embeds.{prompt}"], {}]] for prompt in (target, "uncond"))
    guider.edit(positive, negative, inversion.trajectory[-1], settings.tail)
    for row, step in zip(recorded[f"{name}.steps.f037"], run["stored_steps"], strict=True):
        ours = guider.latents[step][run["stored_frames"]]
        yield compared(f"fatezero {name} after step {step}", ours, row, EDIT)
    for side in MASK_SIDES:
        if (mask := f"{name}.self_mask.{side}x{side}") in recorded:
            theirs = rearrange(recorded[mask], "step n 1 h w -> step n (h w)")
            ours = torch.stack([guider.self_masks[step, (side, side)] for step in range(len(theirs))])
            yield Comparison(f"fatezero {name} mask {side}x{side}", share_that_differs(ours, theirs), MASK)
    for part, kind in enumerate(("source", "union")):
        if f"{name}.latent_mask_{kind}" in recorded:
            theirs = rearrange(recorded[f"{name}.latent_mask_{kind}"], "step n 1 h w -> step n h w")
            ours = torch.stack([guider.latent_masks[step][part] for step in range(len(theirs))])
            yield Comparison(f"fatezero {name} latent mask, {kind}", share_that_differs(ours, theirs), MASK)
