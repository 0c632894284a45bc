"""STEM Bases: self-attention that reads the bases of the whole video."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from .fields.shared import CATEGORY, OF_PRESET, choice, seed_input
from .methods.attention.installing import install
from .methods.seams.comfyui_versions import advanced, found_by
from .methods.seams.refusals import check_model
from .methods.stem.attention import StemSelfAttention
from .methods.stem.settings import MOST_BASES, MOST_FRAMES_PER_BATCH, MOST_ITERATIONS, PRESETS, StemSettings


class StemBases(io.ComfyNode):
    """MODEL -> MODEL with STEM self-attention in every layer (paper Eq. 7-11)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMBases",
            display_name="STEM Bases",
            category=CATEGORY,
            **found_by("STEM", "EM", "expectation maximisation", "video inversion"),
            description="Fits a small set of bases to the features of the whole video by expectation-maximisation, at "
            "every self-attention layer and time step, and lets every frame read its keys and values from "
            "them. Connect the result to STEM Inversion Sampler; without this node the sampler does plain "
            "DDIM inversion.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion model: 1.x, 2.x or XL."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="paper",
                    tooltip="paper: the method of the paper, with normalised bases that start from tokens, because the "
                    "printed form leaves many bases empty. paper_literal: the equations as printed, with "
                    "noise_convention current in the sampler. reference_code: what the authors' code does (per "
                    "head, on keys, 5 iterations, 8 frames at a time). tokenflow: like paper, but bases start "
                    "from random numbers and are not normalised, as printed; TokenFlow edits then keep the "
                    "background better, FateZero edits keep it worse.",
                ),
                *_basic_inputs(),
                *_fitting_inputs(),
                *_running_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The model with STEM self-attention.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        preset: str,
        num_bases: int,
        temperature: float = 0.0,
        iterations: int = 0,
        seed: int = 0,
        em_space: str = OF_PRESET,
        normalisation: str = OF_PRESET,
        initialisation: str = OF_PRESET,
        scope: str = OF_PRESET,
        scope_frames: int = 8,
        mass_weighting: bool = False,
        frames_per_batch: int = 0,
        explained_energy: float = 0.0,
        warm_start: int = 0,
        kernels: str = "auto",
    ) -> io.NodeOutput:
        check_model(model, "STEM Bases")
        settings = PRESETS[preset]
        em_changes = {"num_bases": num_bases, "backend": kernels}
        if temperature > 0:
            em_changes["temperature"] = temperature
        if iterations > 0:
            em_changes["iterations"] = iterations
        if normalisation != OF_PRESET:
            em_changes["normalize_bases"] = normalisation == "on"
        changes = {
            field: value
            for field, value in (("space", em_space), ("initialisation", initialisation), ("scope", scope))
            if value != OF_PRESET
        }
        settings = replace(
            settings,
            em=replace(settings.em, **em_changes),
            scope_frames=scope_frames,
            mass_weighted=mass_weighting,
            explained_energy=explained_energy,
            warm_start=warm_start,
            seed=seed,
            **changes,
        )
        method = StemSelfAttention.from_settings(_named(settings, preset), frames_per_batch)
        return io.NodeOutput(install(model, method))


def _named(settings: StemSettings, preset: str) -> StemSettings:
    """Settings that left their preset are called custom; size and seed do not count as leaving it."""
    original = PRESETS[preset]
    em = replace(settings.em, num_bases=original.em.num_bases, backend=original.em.backend)
    same = replace(settings, em=em, seed=original.seed, preset=preset)
    return replace(settings, preset=preset if same == original else "custom")


def _basic_inputs() -> list[io.Input]:
    """How many bases, and how EM fits them."""
    return [
        io.Int.Input(
            "num_bases",
            default=256,
            min=1,
            max=MOST_BASES,
            tooltip="K, the number of bases per layer. The paper uses 256; more bases keep more detail and cost more "
            "time and memory.",
        ),
        seed_input(
            0,
            "Picks the tokens (or random numbers) that the bases start from. The same seed gives the same bases; "
            "batching changes the result only by rounding. A different seed gives a different inversion, and so a "
            "variation of its edits.",
            draws=False,  # another seed means another inversion
            **advanced(),
        ),
        io.Float.Input(
            "temperature",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.001,
            round=0.0001,
            tooltip="Temperature (tau) of the responsibilities: the smaller, the closer to all or nothing. 0 uses the "
            "preset's value (0.05; 0.01 in reference_code).",
            **advanced(),
        ),
        io.Int.Input(
            "iterations",
            default=0,
            min=0,
            max=MOST_ITERATIONS,
            tooltip="R, the number of EM iterations. 0 uses the preset's value (3; 5 in reference_code).",
            **advanced(),
        ),
    ]


def _fitting_inputs() -> list[io.Input]:
    """What the bases are fitted to and from where; the options of the presets."""

    def override(name: str, options: list[str], tooltip: str) -> io.Combo.Input:
        return choice(name, [OF_PRESET, *options], tooltip, optional=True, **advanced())

    return [
        override(
            "em_space",
            ["features", "keys_per_head"],
            "What the bases are fitted to. features: the layer's normalised tokens, one set for all heads (the paper). "
            "keys_per_head: the projected keys, one set per head (the authors' code).",
        ),
        override(
            "normalisation",
            ["on", "off"],
            "Whether bases are divided by their length before tokens choose among them. When off, bases with large "
            "norms attract tokens that are closer to other bases.",
        ),
        override(
            "initialisation",
            ["tokens", "gaussian"],
            "Where EM starts. tokens: distinct tokens of the video. gaussian: random numbers with the mean and spread "
            "of the tokens.",
        ),
        override(
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
            tooltip="Weight each base by the number of pixels it stands for, as attention over all pixels would. The "
            "paper does not do this.",
        ),
    ]


def _running_inputs() -> list[io.Input]:
    """What costs time and memory."""
    return [
        io.Int.Input(
            "frames_per_batch",
            default=0,
            min=0,
            max=MOST_FRAMES_PER_BATCH,
            optional=True,
            **advanced(),
            tooltip="How many frames go through the network at a time; fewer need less memory. Whatever the number, "
            "the bases are those of the whole video and the result is the same except for rounding. 0 decides once "
            "a run, from the memory that the device has in all, and keeps the number with the inversion, so that the "
            "same workflow gives the same result every time. If memory is short, fewer frames go through, and the log "
            "says so.",
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
            tooltip="Let every layer choose its own number of bases: the smallest that explains this share of the "
            "variance of its features, at most num_bases. 0 uses num_bases everywhere.",
        ),
        io.Int.Input(
            "warm_start",
            default=0,
            min=0,
            max=MOST_ITERATIONS,
            optional=True,
            **advanced(),
            tooltip="In inversion and reconstruction, start each step from the bases of the step before and run only "
            "this many iterations. 0 starts every step from scratch. FateZero Edit, Bases Preview and Feature "
            "PCA refuse such an inversion.",
        ),
        choice(
            "kernels",
            ["auto", "eager", "triton"],
            "What computes the bases. eager is plain PyTorch; triton needs an NVIDIA GPU; auto uses triton only on "
            "GPUs where it has been verified (none so far). Affects speed only.",
            optional=True,
            **advanced(),
        ),
    ]
