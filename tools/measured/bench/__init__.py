"""`make bench`: what inversions and edits cost, as ratios to a baseline that is measured in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ... import locations
from ...host import loaded_model, tensor_file
from .results import VideoSize, load, merged, rows_of, save
from .timing import Workload, interleaved

NUMBERS, PAGE = "benchmarks.json", "benchmarks.md"
GROUPS = ("em", "inversion", "batches", "fatezero", "tokenflow", "sizes")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; what is not given depends on the device."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups to measure")
    parser.add_argument("--checkpoint", type=Path, help="an SD1.5 checkpoint; random weights of its size if not given")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run, interleaved")
    parser.add_argument("--steps", type=int, help="of the inversions")
    parser.add_argument(
        "--host-attention", action="store_true", help="the attention that ComfyUI takes by itself, not PyTorch's"
    )
    parser.add_argument("--frames", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page again")
    parser.add_argument("--output", type=Path, default=locations.ROOT / "docs")
    return parser.parse_args(arguments)


def random_checkpoint() -> Path:
    """SD1.5 at full size with random weights, made once: time and memory do not depend on what weights say."""
    file = locations.from_environment().setup / "models" / "random_sd15.safetensors"
    if not file.is_file():
        from ...host import tiny_checkpoint

        tensor_file.write(tiny_checkpoint.build(full=True), file)
    return file


def measure(group: str, loaded: loaded_model.Loaded, options: argparse.Namespace, cuda: bool) -> Iterator[dict]:
    """The rows of a group."""
    import torch
    from comfy.ldm.modules.attention import optimized_attention

    from ....stem_kernels.em import EMSettings
    from . import base_counts, editing, em, inversion
    from .live_tensors import live_mb

    asked = {name: getattr(options, name) for name in ("frames", "height", "width") if getattr(options, name)}
    base = loaded.model.model
    model_dtype = _name(base.manual_cast_dtype or base.get_dtype())
    attention = {"attention": optimized_attention.__name__.removeprefix("attention_")}

    def size(**usual: int) -> VideoSize:
        return VideoSize(**usual | asked)

    def rows(video: VideoSize, workloads: list[Workload], baseline: str, rounds: int = 1) -> list[dict]:
        found = interleaved(workloads, rounds, warm_up=cuda)
        return [row | attention for row in rows_of(group, video, workloads, found, baseline, model_dtype)]

    video = size(frames=48 if cuda else 4, height=360, width=640)
    if group == "em":
        dtype, device = (torch.float16, "cuda") if cuda else (torch.float32, "cpu")
        for k in em.NUM_BASES:
            fits = em.workloads(video, EMSettings(num_bases=k), dtype, device)
            found = interleaved(fits, max(5, options.rounds), warm_up=True)
            yield from rows_of(group, video, fits, found, em.FLOOR, _name(dtype))
    elif group == "inversion":
        inversions = inversion.workloads(loaded, video, options.steps or (50 if cuda else 1))
        yield from rows(video, inversions, inversion.BASELINE, options.rounds)
    elif group == "batches":
        pixels = 512 if cuda else 256
        for frames in (16, 48, 120, 200) if cuda else (8, 16, 32):
            video = size(frames=frames, height=pixels, width=pixels)
            batches = inversion.in_batches(loaded, video, (None, 8, 4))
            for row, batch in zip(rows(video, batches, batches[0].name), batches, strict=True):
                yield row | {"live_mb": live_mb(batch.run)}
    elif group == "fatezero":
        video = size(frames=8, height=512, width=512)
        yield from rows(video, editing.fatezero(loaded, video), "plain sampling")
    elif group == "tokenflow":
        pixels = 512 if cuda else 192
        for frames in (8, 16, 32):
            video = size(frames=frames, height=pixels, width=pixels)
            yield from rows(video, editing.tokenflow(loaded, video), editing.PerFrameGuider.purpose)
    else:
        small = loaded_model.load(locations.TRAINED)
        for frames, clips in ((8, 3), (48, 2), (120, 1)):
            yield from base_counts.rows(small, frames, min(clips, options.rounds), model_dtype)


def main(arguments: list[str]) -> int:
    """Measures, keeps every group as soon as it is done, and writes the page; returns the exit status."""
    options = parse(arguments)
    loaded_model.prepare(pytorch_attention=not options.host_attention)
    import torch

    from . import report

    numbers = options.output / NUMBERS
    if not options.report:
        with torch.inference_mode():
            loaded = loaded_model.load(options.checkpoint or random_checkpoint())
            for group in options.only:
                print(f"{group}:", flush=True)
                found = list(measure(group, loaded, options, torch.cuda.is_available()))
                save(merged(load(numbers), found), numbers)
    (options.output / PAGE).write_text(report.page(load(numbers)), encoding="utf-8")
    print(f"written to {options.output}: {PAGE} and {NUMBERS}")
    return 0


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
