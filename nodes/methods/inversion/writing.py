"""Writing a safetensors file a piece at a time, which the library does in one call that cannot be interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_PIECE = 1 << 24


def write_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Writes contiguous tensors of TYPES on the CPU, to the byte as `safetensors.torch.save_file` does, with progress.

    Raises:
        OSError: the file cannot be written.
        InterruptProcessingException: ComfyUI's user has interrupted; the file is incomplete.
    """
    # wide numbers first, so that each begins at a multiple of its width
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, list(TYPES).index(tensors[name].dtype), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    progress = comfy.utils.ProgressBar(end)
    with file.open("wb") as content:
        content.write(len(text).to_bytes(8, "little"))
        content.write(text)
        for name in names:
            for piece in tensors[name].reshape(-1).view(torch.uint8).split(_PIECE):
                comfy.model_management.throw_exception_if_processing_interrupted()
                content.write(memoryview(piece.numpy()))
                progress.update(len(piece))
