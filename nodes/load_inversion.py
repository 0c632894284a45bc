"""Load Inversion: an INVERSION that was saved."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .fields.shared import CATEGORY, InversionSocket
from .folders import FOLDER, file_state, inversion_path, saved_inversions
from .methods.inversion.file import load_inversion
from .methods.seams.comfyui_versions import found_by
from .methods.seams.refusals import check_model

PURPOSE = "Load Inversion"


class LoadInversion(io.ComfyNode):
    """File and MODEL -> INVERSION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMLoadInversion",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("inversion file"),
            description="Reads an inversion written by Save Inversion. The model is not in the file: connect the "
            "checkpoint that it was made with. The settings of STEM Bases or Frame Context are in the file "
            "and are applied again.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=saved_inversions(),
                    tooltip=f"Files in the folder {FOLDER} of the output and input folders, the newest first.",
                ),
                io.Model.Input(
                    "model", tooltip="The inversion's checkpoint, from its loader, with the same LoRA if it had one."
                ),
            ],
            outputs=[
                InversionSocket.Output(
                    "inversion", display_name="inversion", tooltip="For Reconstruct and the edit nodes."
                ),
                io.Int.Output("frames", display_name="frames", tooltip="Number of frames."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        if file is None:  # connected to another node
            return True
        try:
            inversion_path(file, PURPOSE)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **others: Any) -> str:
        try:
            return f"{file}:{file_state(str(inversion_path(file, PURPOSE)))}"
        except (ValueError, OSError):
            return file

    @classmethod
    def execute(cls, file: str, model: Any) -> io.NodeOutput:
        check_model(model, PURPOSE)
        inversion = load_inversion(inversion_path(file, PURPOSE), model, PURPOSE)
        return io.NodeOutput(inversion, inversion.frames)
