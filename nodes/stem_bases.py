"""STEM Bases: self-attention that reads the bases of the whole video."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from .fields.shared import CATEGORY, OF_PRESET
from .fields.stem_bases import basic_inputs, fitting_inputs, running_inputs
from .methods.attention.installing import install
from .methods.seams.host_versions import found_by
from .methods.seams.refusals import check_model
from .methods.stem.attention import StemSelfAttention
from .methods.stem.settings import PRESETS, StemSettings


class StemBases(io.ComfyNode):
    """MODEL -> MODEL with STEM self-attention in all sixteen layers (paper Eq. 7-11)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMBases",
            display_name="STEM Bases",
            category=CATEGORY,
            **found_by("STEM", "EM", "expectation maximisation", "video inversion"),
            description="Fits a few bases to the features of the whole video by expectation-maximisation, at every "
            "self-attention layer and time step, and lets every frame read its keys and values from them. Connect the "
            "result to STEM Inversion Sampler; without this node the sampler does plain DDIM inversion.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion model: 1.x, 2.x or XL."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="paper",
                    tooltip="paper: the method of the paper, with normalised bases that start from tokens, because the "
                    "printed form leaves many bases empty. paper_literal: the equations as printed. reference_code: "
                    "what the authors' code does (per head, on keys, 5 iterations, 8 frames at a time). tokenflow: as "
                    "paper, but bases start from random numbers and keep their length, as printed; edits by TokenFlow "
                    "then keep the background closer, edits by FateZero do not.",
                ),
                *basic_inputs(),
                *fitting_inputs(),
                *running_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The model with STEM self-attention.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        preset: str,
        num_bases: int,
        temperature: float,
        iterations: int,
        seed: int,
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
