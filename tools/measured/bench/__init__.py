"""`make bench`: what inversions and edits cost, as ratios to a baseline that is measured in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ... import locations
from ...host import loaded_model, tensor_file
from .rows import Size, load, merged, rows_of, save

NUMBERS, PAGE = "benchmarks.json", "benchmarks.md"
GROUPS = ("em", "inversion", "batches", "fatezero", "tokenflow", "sizes")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; what is not given depends on the device."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups to measure")
    parser.add_argument("--checkpoint", type=Path, help="an SD1.5 checkpoint; random weights of its size if not given")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run, by turns")
    parser.add_argument("--steps", type=int, help="of the inversions")
    parser.add_argument(
        "--host-attention", action="store_true", help="the attention that the host takes by itself, not PyTorch's"
    )
    parser.add_argument("--frames", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page anew")
    parser.add_argument("--output", type=Path, default=locations.ROOT / "docs")
    return parser.parse_args(arguments)


def random_checkpoint() -> Path:
    """SD1.5 at full size with random weights, made once: time and memory do not depend on what weights say."""
    file = locations.from_environment().setup / "models" / "random_sd15.safetensors"
    if not file.is_file():
        from ...host import tiny_checkpoint

        tensor_file.write(tiny_checkpoint.build(full=True), file)
    return file


def measurements(
    loaded: loaded_model.Loaded, options: argparse.Namespace, cuda: bool
) -> dict[str, Callable[[], Iterator[list[dict]]]]:
    """A function for every group, which yields rows."""
    import torch
    from comfy.ldm.modules.attention import optimized_attention

    from ....stem_kernels.em import EMSettings
    from . import editing, em, inversion, sizes
    from .live_tensors import live_mb
    from .measuring import by_turns

    video = _asked(options, Size(48, 360, 640) if cuda else Size(4, 360, 640))
    steps = options.steps or (50 if cuda else 1)
    base = loaded.model.model
    model_type = _name(base.manual_cast_dtype or base.get_dtype())
    attention = optimized_attention.__name__.removeprefix("attention_")

    def rows(group: str, size: Size, cases: list, baseline: str, rounds: int = options.rounds) -> list[dict]:
        found = rows_of(group, size, cases, by_turns(cases, rounds, warm_up=cuda), baseline, model_type)
        return [row | {"attention": attention} for row in found]

    def of_em() -> Iterator[list[dict]]:
        dtype, device = (torch.float16, "cuda") if cuda else (torch.float32, "cpu")
        for k in em.SIZES:
            cases = em.cases(video, EMSettings(num_bases=k), dtype, device)
            found = by_turns(cases, max(5, options.rounds), warm_up=True)
            yield rows_of("em", video, cases, found, em.FLOOR, _name(dtype))

    def of_inversion() -> Iterator[list[dict]]:
        yield rows("inversion", video, inversion.table_cases(loaded, video, steps), inversion.BASELINE)

    def of_batches() -> Iterator[list[dict]]:
        for frames in (16, 48, 120, 200) if cuda else (8, 16, 32):
            size = _asked(options, Size(frames, 512, 512) if cuda else Size(frames, 256, 256))
            cases = inversion.batch_cases(loaded, size, (None, 8, 4))
            found = rows("batches", size, cases, cases[0].name, 1)
            yield [row | {"live_mb": live_mb(case.run)} for row, case in zip(found, cases, strict=True)]

    def of_fatezero() -> Iterator[list[dict]]:
        size = _asked(options, Size(8, 512, 512))
        yield rows("fatezero", size, editing.fatezero_cases(loaded, size), "plain sampling", 1)

    def of_tokenflow() -> Iterator[list[dict]]:
        for frames in (8, 16, 32):
            size = _asked(options, Size(frames, 512, 512) if cuda else Size(frames, 192, 192))
            yield rows("tokenflow", size, editing.tokenflow_cases(loaded, size), editing.PerFrameGuider.purpose, 1)

    def of_sizes() -> Iterator[list[dict]]:
        small = loaded_model.load(locations.TRAINED)
        for frames, clips in ((8, 3), (48, 2), (120, 1)):
            yield sizes.rows(small, frames, min(clips, options.rounds), model_type)

    found = (of_em, of_inversion, of_batches, of_fatezero, of_tokenflow, of_sizes)
    return dict(zip(GROUPS, found, strict=True))


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
            groups = measurements(loaded, options, torch.cuda.is_available())
            for name in options.only:
                print(f"{name}:", flush=True)
                found = [row for rows in groups[name]() for row in rows]
                save(merged(load(numbers), found), numbers)
    (options.output / PAGE).write_text(report.page(load(numbers)), encoding="utf-8")
    print(f"written to {options.output}: {PAGE} and {NUMBERS}")
    return 0


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _asked(options: argparse.Namespace, size: Size) -> Size:
    given = {name: getattr(options, name) for name in ("frames", "height", "width")}
    return replace(size, **{name: value for name, value in given.items() if value})
