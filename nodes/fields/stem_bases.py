"""The fields of STEM Bases."""

from __future__ import annotations

from comfy_api.latest import io

from ..methods.seams.host_versions import advanced
from ..methods.stem.settings import MOST_BASES, MOST_ITERATIONS
from .shared import OF_PRESET


def basic_inputs() -> list[io.Input]:
    """How many bases, and how EM fits them."""
    return [
        io.Int.Input(
            "num_bases",
            default=256,
            min=1,
            max=MOST_BASES,
            tooltip="K, the number of bases per layer. The paper uses 256; more keep more detail and cost more.",
        ),
        io.Float.Input(
            "temperature",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.001,
            round=0.0001,
            tooltip="Temperature (tau) of the responsibilities: small makes them all or nothing. 0 takes the "
            "preset's (0.05; 0.01 in reference_code).",
        ),
        io.Int.Input(
            "iterations",
            default=0,
            min=0,
            max=MOST_ITERATIONS,
            tooltip="R, rounds of expectation and maximisation. 0 takes the preset's (3; 5 in reference_code).",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=False,
            tooltip="Seed of the bases that EM starts from. The same seed gives the same result, whatever the "
            "batching.",
        ),
    ]


def fitting_inputs() -> list[io.Input]:
    """What the bases are fitted to and from where; the options of the presets."""

    def choice(name: str, options: list[str], tooltip: str) -> io.Combo.Input:
        return io.Combo.Input(
            name, options=[OF_PRESET, *options], default=OF_PRESET, optional=True, tooltip=tooltip, **advanced()
        )

    return [
        choice(
            "em_space",
            ["features", "keys_per_head"],
            "What the bases are fitted to. features: the layer's normalised tokens, one set for all heads (the paper). "
            "keys_per_head: the projected keys, one set per head (the authors' code).",
        ),
        choice(
            "normalisation",
            ["on", "off"],
            "Whether bases are divided by their length before tokens choose among them. Off, long bases win tokens "
            "that are nearer to others.",
        ),
        choice(
            "initialisation",
            ["tokens", "gaussian"],
            "Where EM starts. tokens: distinct tokens of the video. gaussian: random numbers with the mean and spread "
            "of the tokens.",
        ),
        choice(
            "scope",
            ["all_frames", "anchor_frames", "frame_chunks"],
            "Which frames share bases. all_frames: the whole video. anchor_frames: bases of a few evenly spaced frames "
            "serve all. frame_chunks: every chunk of frames has its own.",
        ),
        io.Int.Input(
            "scope_frames",
            default=8,
            min=1,
            max=4096,
            optional=True,
            **advanced(),
            tooltip="Number of anchor frames, or frames in a chunk. Unused with all_frames.",
        ),
        io.Boolean.Input(
            "mass_weighting",
            default=False,
            optional=True,
            **advanced(),
            tooltip="Let a base count for as many pixels as it stands for, as attention over all pixels would. The "
            "paper does not.",
        ),
    ]


def running_inputs() -> list[io.Input]:
    """What costs time and memory."""
    return [
        io.Int.Input(
            "frames_per_batch",
            default=0,
            min=0,
            max=4096,
            optional=True,
            **advanced(),
            tooltip="How many frames go through the network at a time. The bases are those of the whole video, and the "
            "result is the same but for rounding, whatever this is; fewer need less memory. 0 takes as many as fit.",
        ),
        io.Float.Input(
            "explained_energy",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=0.001,
            optional=True,
            **advanced(),
            tooltip="Let every layer choose its own number of bases: the smallest one that explains this share of how "
            "its features vary, num_bases at most. 0 takes num_bases everywhere.",
        ),
        io.Int.Input(
            "warm_start",
            default=0,
            min=0,
            max=MOST_ITERATIONS,
            optional=True,
            **advanced(),
            tooltip="In inversion and reconstruction, start each step from the bases of the step before and iterate "
            "only this often. 0 starts every step afresh. FateZero Edit cannot follow a warm start.",
        ),
        io.Combo.Input(
            "kernels",
            options=["auto", "eager", "triton"],
            default="auto",
            optional=True,
            **advanced(),
            tooltip="What computes the bases. eager is plain PyTorch; triton needs an NVIDIA GPU; auto takes triton on "
            "the GPUs where it was verified. Only speed depends on it.",
        ),
    ]
