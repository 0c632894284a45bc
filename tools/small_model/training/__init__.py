"""`make train`: trains the small model from rendered clips: VAE, UNet with text encoder, and the quality classifier.

Everything is seeded and goes on where it was interrupted. What is trained lies in a folder of its own; the finished
checkpoint and the classifier replace those in `assets`.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from ... import locations

DENOISER_FRAMES = 24_000
VAE_FRAMES = 12_000
PREVIEW_EVERY = 1000
PREVIEWS = 16
UNFINISHED = "unfinished.safetensors"
PREVIEW_CFG, PREVIEW_STEPS = 4.0, 20


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make train", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the training is kept (default: in the set-up folder)")
    parser.add_argument("--output", type=Path, default=locations.TRAINED.parent, help="folder of the finished files")
    parser.add_argument("--steps", type=int, help="stop the denoiser after this many steps; leave a file to go on from")
    parser.add_argument("--start", type=Path, help="go on from the file that an earlier training has left")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Trains what is not trained yet and writes the checkpoint and the classifier."""
    options = parse(arguments)
    where = locations.from_environment()
    folder = options.folder or where.setup / "training"
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(where.host))
    from comfy.cli_args import args

    from .loop import best_device

    args.cpu = best_device().type == "cpu"
    from ...host import tensor_file
    from . import autoencoder, checkpoint, classifier, denoiser, frames, workers

    workers.join()
    pictures = frames.training_frames(VAE_FRAMES)
    if options.start:
        vae, start = checkpoint.load_unfinished(options.start)
    else:
        vae, start = autoencoder.train_autoencoder(pictures, folder), None
    examples, spread = denoiser.examples(vae, DENOISER_FRAMES, folder / "latents.pt")
    preview = previews(vae, spread, folder, examples)
    network = denoiser.train_denoiser(examples, folder, preview, options.steps, start)
    leads = workers.rank() == 0
    if options.steps is not None and options.steps < denoiser.PLAN.steps:
        written = [folder / UNFINISHED]
        if leads:
            checkpoint.save_unfinished(written[0], options.steps, vae, network, examples.tokens)
    else:
        judge = classifier.train_classifier(pictures, folder)
        written = [options.output / file.name for file in (locations.TRAINED, locations.CLASSIFIER)]
        if leads:
            tensor_file.write(checkpoint.assemble(vae, spread, network, examples.tokens), written[0])
            tensor_file.write({name: weight.half() for name, weight in judge.state_dict().items()}, written[1])
    for file in written if leads else ():
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    workers.leave()
    return 0


def previews(vae, spread: float, folder: Path, examples):
    """A function that writes samples of the network in training as a picture, now and then."""
    from einops import rearrange
    from PIL import Image

    from ..rendered_clips.scene import random_scene
    from .autoencoder import decode
    from .denoiser import sample, tokenise

    scenes = [random_scene(random.Random(i), held_out=i % 2 == 1) for i in range(PREVIEWS)]
    tokens = tokenise([scene.caption for scene in scenes])

    def preview(network, step: int) -> None:
        if step % PREVIEW_EVERY:
            return
        network.eval()
        latents = sample(network, tokens, examples.empty, examples.latents.shape[-1], PREVIEW_CFG, PREVIEW_STEPS, 0)
        network.train()
        grid = rearrange(decode(vae, latents.cpu() * spread), "(row n) c h w -> (row h) (n w) c", row=2)
        Image.fromarray((grid * 255).byte().numpy()).save(folder / f"samples_{step:06d}.png")

    return preview
