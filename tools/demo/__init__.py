"""`make demo`: edits a clip with the shipped workflow in a real ComfyUI, and reports how well it was reconstructed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ...batch.comfyui.client import HostClient, HostError
from ...batch.comfyui.events import Event
from ...batch.comfyui.memory import Memory
from ...batch.comfyui.process import HostProcess, device_arguments
from .. import locations
from . import example, pictures, report, workflow
from .progress import ProgressLines
from .workflow import EDIT, QUICK, SMALL_MODEL, Choices, DemoError, Wish

FOLDER = locations.ROOT / "workflows" / "api"
CLIP = locations.ROOT / "assets" / "big_buck_bunny.mp4"
OUTPUT = locations.ROOT / "output" / "demo"
UPLOAD_LIMIT_MB = 100  # of ComfyUI, by default


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; an empty value counts as not given, so that make can pass all of them."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--all", default="", help="anything: five edits by three workflows (make: ALL=1)")
    parser.add_argument("--video", default="", help="a clip of your own (make: VIDEO)")
    parser.add_argument("--checkpoint", default="", help="an SD1.5 checkpoint of your own (make: CHECKPOINT)")
    parser.add_argument("--source", default="", help="what the clip shows (make: SOURCE)")
    parser.add_argument("--target", default="", help="what it is to become (make: TARGET)")
    return parser.parse_args(arguments)


def choose(options: argparse.Namespace, where: locations.Locations) -> Choices:
    """The files and prompts of this run. DemoError when one is missing."""
    if options.video and not (options.source and options.target):
        raise DemoError(
            'VIDEO is given without both prompts. Say what the clip shows and what it is to become: SOURCE="a dog on a '
            'beach" TARGET="a wolf on a beach".'
        )
    target = (Wish(prompt=options.target),) if options.target else None
    if not options.video and not options.checkpoint:
        clip, source = OUTPUT / "source.mp4", options.source or example.SCENE.caption
        wishes, dimensions = (example.WISHES, SMALL_MODEL) if options.all else (example.WISHES[:1], QUICK)
        return Choices(clip, locations.TRAINED, source, target or wishes, dimensions, example=True)
    video = existing(options.video or CLIP, "video", "VIDEO=clip.mp4")
    checkpoint = Path(options.checkpoint or locations.TRAINED).expanduser()
    known = where.host / "models" / "checkpoints" / checkpoint
    if not checkpoint.is_file() and known.is_file():
        checkpoint = known
    checkpoint = existing(checkpoint, "checkpoint", "CHECKPOINT=v1-5.safetensors")
    dimensions = None if options.checkpoint else SMALL_MODEL
    return Choices(video, checkpoint, options.source or None, target or (Wish(),), dimensions)


def existing(file: str | Path, what: str, usage: str) -> Path:
    """The file, or a DemoError that says how to name one."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise DemoError(f"There is no {what} at {path}. Give the path of a file: {usage}.")
    return path


def host_environment() -> dict[str, str]:
    """Variables for ComfyUI: one thread where there are two CPU cores or fewer, unless the person has chosen.

    Two threads are faster where both cores are free, but as soon as one is not they wait for each other: what one
    thread does in 20 s has been measured to take over 40.
    """
    few = (os.cpu_count() or 1) <= 2
    return {"OMP_NUM_THREADS": "1"} if few and "OMP_NUM_THREADS" not in os.environ else {}


def host_arguments(video: Path) -> list[str]:
    """The arguments of ComfyUI beyond those that every run needs."""
    device = device_arguments()
    megabytes = video.stat().st_size // 2**20 + 1
    return [
        *device,
        # without an accelerator ComfyUI would choose an attention that saves memory and costs time
        *(["--use-pytorch-cross-attention"] if device else []),
        *(["--max-upload-size", str(megabytes)] if megabytes > UPLOAD_LIMIT_MB else []),
    ]


def run(choices: Choices, where: locations.Locations, base: Path) -> dict:
    """Runs the workflow in a ComfyUI whose files are in `base`, writes the outputs, and returns the report."""
    started = time.monotonic()
    shipped = {one.name: workflow.load(FOLDER / f"{one.name}.json") for one in workflow.WORKFLOWS}
    show = ProgressLines(sys.stdout)
    if choices.example:
        example.write_clip(choices.video)
    host = HostProcess(
        base,
        where.host,
        where.host_python,
        locations.PACKS,
        extra_args=host_arguments(choices.video),
        models={"checkpoints": [choices.checkpoint]},
        environment=host_environment(),
    )
    memory = Memory(host)

    def on_event(event: Event) -> None:
        show(event)
        memory.look()

    try:
        print("starting ComfyUI ...", flush=True)
        with host:
            uploaded = host.client.upload(choices.video)
            queued = time.monotonic()
            frames, stages, prompt = edit(choices, shipped, host.client, uploaded, on_event)
            device = host.client.system_stats()["devices"][0]["name"]
    finally:
        show.close()
        if host.log.is_file():
            shutil.copyfile(host.log, OUTPUT / "host.log")
    labels = [wish.label for wish in choices.wishes]
    pictures.write_all(OUTPUT, frames, labels, workflow.playback_rate(prompt, choices.video))
    seconds = {"setup": queued - started, **stages, "total": time.monotonic() - started}
    known = choices.example and all(wish in example.WISHES for wish in choices.wishes)
    truths = example.truths(choices.wishes, len(frames[workflow.SOURCE])) if known else {}
    steps = workflow.steps_of(prompt, choices.wishes[0].workflow)
    return report.make(choices, steps, frames, seconds, device, memory, truths)


def edit(
    choices: Choices, shipped: Mapping, client: HostClient, uploaded: str, on_event: Callable[[Event], None]
) -> tuple[dict[str, np.ndarray], dict[str, float], dict]:
    """Runs a workflow for every wish; ComfyUI keeps the inversion and the reconstruction from one to the next.

    Returns the frames by name, uint8 [N, H, W, 3], the seconds by stage, and the first workflow as it was run.
    """
    frames: dict[str, np.ndarray] = {}
    seconds = dict.fromkeys(workflow.TOKENFLOW.stages, 0.0)
    prompts = [workflow.fill_in(shipped[wish.workflow.name], choices, wish, uploaded) for wish in choices.wishes]
    for wish, prompt in zip(choices.wishes, prompts, strict=True):
        result = client.run(prompt, on_event)
        wanted = workflow.SAVES if not frames else (EDIT,)
        for name, files in workflow.outputs_by_title(prompt, result.outputs, wanted).items():
            frames[wish.label if name == EDIT else name] = pictures.decode([client.view(file) for file in files])
        for stage, spent in workflow.seconds_of(prompt, wish.workflow, result.seconds_by_node).items():
            seconds[stage] += spent
    return frames, seconds, prompts[0]


def main(arguments: list[str]) -> int:
    """Runs the demo and prints the report; returns the exit status."""
    # so that a terminated demo stops its ComfyUI too
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    where = locations.from_environment()
    try:
        choices = choose(parse(arguments), where)
        OUTPUT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stem-demo-", ignore_cleanup_errors=True) as base:
            made = run(choices, where, Path(base))
        (OUTPUT / "report.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    except (DemoError, HostError) as error:
        print(f"demo stopped: {error}")
        return 1
    except KeyboardInterrupt:
        print("demo interrupted; ComfyUI has been stopped")
        return 130
    print(report.as_text(made))
    print(f"written to {OUTPUT}: {', '.join(pictures.names(made['edited']))}, report.json")
    return 0
