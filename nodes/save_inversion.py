"""Save Inversion: keeps an INVERSION for later sessions."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .fields.shared import CATEGORY, InversionSocket
from .folders import FOLDER, free_path
from .methods.inversion.file import save_inversion
from .methods.inversion.inversion import Inversion
from .methods.seams.comfyui_versions import found_by

PURPOSE = "Save Inversion"


class SaveInversion(io.ComfyNode):
    """INVERSION -> file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMSaveInversion",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("inversion file"),
            description=f"Writes an inversion to the folder {FOLDER} of the output folder, so that a video has to be "
            "inverted only once for many edits, today or later.",
            inputs=[
                InversionSocket.Input("inversion", tooltip="From STEM Inversion Sampler."),
                io.String.Input(
                    "filename_prefix",
                    default="inversion",
                    tooltip="Start of the file name; a number is appended, and nothing is overwritten.",
                ),
            ],
            outputs=[
                InversionSocket.Output(
                    "inversion_out", display_name="inversion", tooltip="The same inversion, passed through."
                ),
                io.String.Output("file", display_name="file", tooltip="The file's name, as Load Inversion lists it."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, inversion: Inversion, filename_prefix: str) -> io.NodeOutput:
        path, name, subfolder = free_path(filename_prefix, PURPOSE)
        save_inversion(inversion, path)
        below = subfolder.replace("\\", "/").removeprefix(FOLDER).strip("/")
        listed = f"{below}/{name} [output]" if below else f"{name} [output]"
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        return io.NodeOutput(inversion, listed, ui=ui.PreviewText(f"{listed}: {size}"))
