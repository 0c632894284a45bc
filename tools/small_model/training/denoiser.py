"""The UNet and its text encoder: SD1.5's noise prediction, trained together on latents of the rendered clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from comfy.model_sampling import ModelSamplingDiscrete
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPTextConfig, CLIPTextModel

from ....stem_kernels.ddim import inversion_timesteps, move_preserving
from ...host.tiny_checkpoint import unet_config
from ...host.tiny_sd15 import TinySD15, clip_config
from ..rendered_clips.rendering import SIDE
from . import workers
from .autoencoder import Autoencoder, encode
from .frames import training_frames
from .loop import Plan, Start, best_device, device_of, mixed_precision, train

# Every GroupNorm of ComfyUI has 32 groups, so that at a width of 32 it would take away the mean of every channel,
# and with it the colour of a plain area: at 64 channels two share a group. The deeper levels stay at twice the width.
CHANNELS = 64
TEXT_WIDTH = 64
# Of all workers together.
BATCH = 64
LATENT = (4, SIDE // 8, SIDE // 8)
# Share of captions that are left out, for classifier-free guidance.
UNCONDITIONAL = 0.1
# Hang et al. 2023: the loss of a step counts as min(SNR, gamma) / SNR, so that easy steps do not rule.
SNR_GAMMA = 5.0
PLAN = Plan(steps=4600, learning_rate=1e-3, warmup=300, ema=0.998)


class Denoiser(nn.Module):
    """unet: ComfyUI's; text: a CLIP text model with the keys that ComfyUI expects."""

    def __init__(self) -> None:
        super().__init__()
        model = TinySD15(unet_config(CHANNELS, TEXT_WIDTH))
        model.set_inference_dtype(torch.float32, None)
        self.unet = model.get_model({}, device="cpu").diffusion_model
        initialise(self.unet)
        self.text = CLIPTextModel(CLIPTextConfig(**clip_config(TEXT_WIDTH, {}), attn_implementation="eager"))
        self.requires_grad_(True)

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The noise in latents [n, 4, h, w] at timesteps [n], told by token numbers [n, 77]; float32."""
        with mixed_precision(latents.device):
            told = self.text(tokens).last_hidden_state
            options = {"optimized_attention_override": attention}
            return self.unet(latents, timesteps.float(), context=told, transformer_options=options).float()


def initialise(unet: nn.Module) -> None:
    """torch's usual weights, which ComfyUI does not draw; residual branches start at zero, as in LDM."""
    kinds = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm)
    for module in unet.modules():
        for kind in kinds:
            if isinstance(module, kind):
                # ComfyUI's subclasses override this with nothing
                kind.reset_parameters(module)
    for name, module in unet.named_modules():
        if name.endswith(("out_layers.3", "proj_out", "out.2")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def attention(_: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **kwargs: object) -> Tensor:
    """Multi-head attention, on a CPU in float32: its gradient is several times faster so than in bfloat16."""
    q, k, v = (rearrange(x, "row token (head channel) -> row head token channel", head=heads) for x in (q, k, v))
    if q.device.type == "cpu":
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast("cpu", enabled=False):
        attended = scaled_dot_product_attention(q, k, v)
    return rearrange(attended, "row head token channel -> row token (head channel)")


@dataclass(frozen=True)
class Examples:
    """latents: [n, 4, h, w] of unit spread; tokens: [n, 77] of their captions; empty: [77] of no caption."""

    latents: Tensor
    tokens: Tensor
    empty: Tensor


def examples(vae: Autoencoder, count: int, file: Path) -> tuple[Examples, float]:
    """Latents and tokens of `count` training frames, and the latents' spread before it was made 1; kept in `file`."""
    if not file.is_file():
        frames = training_frames(count)
        mine = slice(workers.rank(), None, workers.count())
        latents = torch.zeros(count, *LATENT)
        latents[mine] = encode(vae, frames.pictures[mine])
        workers.sum_in_place(latents)
        if workers.rank() == 0:
            spread = float(latents.std())
            tokens = tokenise([scene.caption for scene in frames.scenes])
            torch.save({"latents": (latents / spread).half(), "spread": spread, "tokens": tokens}, file)
        workers.wait()
    kept = torch.load(file, weights_only=True)
    return Examples(kept["latents"], kept["tokens"], tokenise([""])[0]), kept["spread"]


def tokenise(captions: Sequence[str]) -> Tensor:
    """Token numbers as ComfyUI makes them, int64 [n, 77]."""
    tokenizer = TinySD15(unet_config(CHANNELS, TEXT_WIDTH)).clip_target().tokenizer()
    known = {}
    for caption in dict.fromkeys(captions):
        (chunk,) = tokenizer.tokenize_with_weights(caption)["l"]
        known[caption] = [number for number, _ in chunk]
    return torch.tensor([known[caption] for caption in captions])


def alphas() -> Tensor:
    """SD1.5's cumulative alphas, [1000]."""
    return 1 / (1 + ModelSamplingDiscrete().sigmas ** 2)


def loss_of(examples: Examples) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """The loss as a function of the network and a step's random numbers."""
    table = alphas()

    def loss(network: Denoiser, generator: torch.Generator) -> Tensor:
        count = BATCH // workers.count()
        which = torch.randint(len(examples.latents), (count,), generator=generator)
        timesteps = torch.randint(len(table), (count,), generator=generator)
        latents = examples.latents[which].float()
        tokens = examples.tokens[which]
        tokens[torch.rand(count, generator=generator) < UNCONDITIONAL] = examples.empty
        noise = torch.randn(latents.shape, generator=generator)
        alpha = table[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        ratio = table[timesteps] / (1 - table[timesteps])
        weight = ratio.clamp(max=SNR_GAMMA) / ratio
        device = device_of(network)
        error = network(noisy.to(device), timesteps.to(device), tokens.to(device)) - noise.to(device)
        return (weight.to(device) * error.square().mean(dim=(1, 2, 3))).mean()

    return loss


def train_denoiser(
    examples: Examples,
    folder: Path,
    inspect: Callable[[nn.Module, int], None] | None = None,
    stop: int | None = None,
    start: Start | None = None,
) -> Denoiser:
    """Trains, or goes on with, the UNet and the text encoder; see `loop.train`."""
    torch.manual_seed(PLAN.seed)
    network, loss = Denoiser().to(best_device()), loss_of(examples)
    return train("denoiser", network, loss, PLAN, folder / "denoiser.pt", inspect, stop, start)


@torch.inference_mode()
def sample(network: Denoiser, tokens: Tensor, empty: Tensor, size: int, cfg: float, steps: int, seed: int) -> Tensor:
    """DDIM samples [n, 4, size, size] of captions given as tokens [n, 77]."""
    generator = torch.Generator().manual_seed(seed)
    device = device_of(network)
    z = torch.randn(len(tokens), 4, size, size, generator=generator).to(device)
    table = alphas()
    timesteps = inversion_timesteps(steps)[::-1]
    both = torch.cat([tokens, empty.expand_as(tokens)]).to(device)
    for now, after in zip(timesteps, (*timesteps[1:], 0), strict=True):
        told, untold = network(z.repeat(2, 1, 1, 1), torch.full((len(both),), now, device=device), both).chunk(2)
        z = move_preserving(z, untold + cfg * (told - untold), float(table[now]), float(table[after]))
    return z
