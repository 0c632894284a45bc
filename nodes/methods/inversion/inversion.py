"""The result of an inversion: what a reconstruction or an edit needs to start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ....stem_kernels.ddim import to_exploding
from ..attention.installing import installed_method
from ..stem.attention import StemSelfAttention
from ..stem.settings import StemSettings
from .trajectory import bytes_in_memory

NoiseConvention = Literal["next", "current"]
PIXELS_PER_LATENT = 8  # of a side


@dataclass(frozen=True)
class ModelIdentity:
    """What tells one checkpoint from another, whatever LoRA or patches it carries.

    Attributes:
        family: class of ComfyUI's model configuration.
        fingerprint: a few biases of the UNet, or None where ComfyUI does not let them be read.
    """

    family: str
    fingerprint: tuple[float, ...] | None


@dataclass(frozen=True)
class Inversion:
    """A video, inverted.

    Attributes:
        trajectory: [steps + 1, n, 4, h, w], float32 or float16, on the CPU or in a mapped file, in DDIM's
            variance-preserving space (`z`). Entry 0 is the clean video, declared to be at `sigmas[0]`; entry i + 1 is
            the latent at `timesteps[i]`.
        timesteps: [steps], ascending.
        sigmas: [steps + 1], ComfyUI's noise levels of the entries.
        convention: at which timestep the noise was estimated.
        source: the conditioning of the source prompt.
        model: the MODEL that made it, with its patches.
        identity: of that MODEL's checkpoint.
        mask: noise mask of the LATENT, where edits may change the frames, [n or 1, height, width] of any size, or None.
    """

    trajectory: Tensor
    timesteps: tuple[int, ...]
    sigmas: tuple[float, ...]
    convention: NoiseConvention
    source: list
    model: Any
    identity: ModelIdentity
    mask: Tensor | None = None

    @property
    def stem(self) -> StemSettings | None:
        """Settings of STEM Bases, or None for plain DDIM."""
        method = installed_method(self.model)
        return method.settings if isinstance(method, StemSelfAttention) else None

    @property
    def frames(self) -> int:
        return self.trajectory.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the latent."""
        return self.trajectory.shape[-2], self.trajectory.shape[-1]

    def entry(self, timestep: int) -> int:
        """Position in `trajectory` of the latent at a timestep."""
        return self.timesteps.index(timestep) + 1

    def latent(self, entry: int) -> Tensor:
        """`z` of an entry, [n, 4, h, w], float32."""
        return self.trajectory[entry].float()

    def at(self, timestep: int, device: torch.device | str = "cpu") -> Tensor:
        """ComfyUI's latent `x` at a timestep, [n, 4, h, w], float32."""
        entry = self.entry(timestep)
        return to_exploding(self.latent(entry).to(device), self.sigmas[entry])

    def get_ram_usage(self) -> int:
        """Bytes held, for ComfyUI's cache."""
        return bytes_in_memory(self.trajectory)

    def _comfy_cache_tensors(self) -> list:
        """The same for newer ComfyUI: what its cache counts as held by this."""
        return [self.trajectory, self.model] if bytes_in_memory(self.trajectory) else [self.model]

    def get_models(self) -> list:
        """For newer ComfyUI: MODELs that a workflow with this may need again."""
        return [self.model]


def noise_levels(model: Any, timesteps: Sequence[int]) -> Tensor:
    """MODEL's noise levels: the first of its table, where a clean video is declared to be, then those of timesteps."""
    table = model.get_model_object("model_sampling").sigmas.cpu()
    return torch.stack([table[0], *(table[t] for t in timesteps)])


def identity_of(model: Any) -> ModelIdentity:
    """The identity of a MODEL's checkpoint."""
    family = type(model.model.model_config).__name__
    unet = model.model.diffusion_model
    try:
        biases = [unet.out[2].bias, unet.time_embed[2].bias[:8], unet.input_blocks[0][0].bias[:8]]
        values = torch.cat([bias.detach().to("cpu", torch.float32) for bias in biases])
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError):
        return ModelIdentity(family, None)
    return ModelIdentity(family, tuple(values.tolist()))


def stem_for_edit(model: Any, inversion: Inversion, purpose: str) -> StemSelfAttention:
    """STEM self-attention with the settings of STEM Bases on the MODEL of an edit, or else of its inversion.

    Raises:
        ValueError: neither went through STEM Bases.
    """
    method = installed_method(model)
    if isinstance(method, StemSelfAttention):
        return method
    if inversion.stem is None:
        raise ValueError(
            f"{purpose}: attention is set to stem, but neither the MODEL nor the INVERSION was made with STEM Bases, "
            "so there are no settings for the bases. Connect STEM Bases to this node's model or to the inversion's, or "
            "choose another attention."
        )
    return StemSelfAttention.from_settings(inversion.stem)
