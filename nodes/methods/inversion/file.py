"""An INVERSION as a file: safetensors, with a JSON description among its metadata.

The MODEL is not in the file: it is connected again when the file is loaded, and has to be the same checkpoint. What was
on its self-attention is in the file as settings, and is put on it again.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..attention.installing import install, installed_method, remove
from ..seams.refusals import check_conditioning
from .description import KEY, Description, PlainValue, describe, read_description
from .inversion import Inversion
from .matching import check_identity, check_noise_levels
from .writing import TYPES, write_tensors

_TRAJECTORY, _EMBEDDING, _MASK, _OPTION = "trajectory", "embedding", "mask", "option."
# Numbers in a prompt's tensors: 500 tokens of 8,192 are fewer.
_MOST_OF_A_PROMPT = 1 << 22
# Folders that hold what is being written begin with this.
_UNFINISHED = ".unfinished_"
_A_DAY = 24 * 3600


def save_inversion(inversion: Inversion, file: Path) -> None:
    """Writes a file; it appears under its name only when it is complete, and nothing is left of an interrupted one.

    Raises:
        ValueError: the disk is full or not writable, or the conditioning holds what cannot be written.
    """
    ((embedding, options),) = inversion.source
    tensors = {_TRAJECTORY: inversion.trajectory.contiguous(), _EMBEDDING: embedding.cpu().contiguous()}
    if inversion.mask is not None:
        tensors[_MASK] = inversion.mask.cpu().contiguous()
    plain: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Tensor) and value.dtype in TYPES:
            tensors[_OPTION + name] = value.cpu().contiguous()
        elif isinstance(value, PlainValue):
            plain[name] = value
        else:
            kind = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Save Inversion: the source conditioning holds '{name}', a {kind}, which cannot be saved. Invert with "
                "a plain CLIP Text Encode."
            )
    try:
        description = describe(
            installed_method(inversion.model),
            timesteps=inversion.timesteps,
            sigmas=inversion.sigmas,
            convention=inversion.convention,
            family=inversion.identity.family,
            fingerprint=inversion.identity.fingerprint,
            patches=len(inversion.model.patches),
            options=plain,
        )
    except ValueError as error:
        raise ValueError(f"Save Inversion: {error}.") from None
    try:
        _remove_abandoned(file.parent)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=file.parent) as folder:
            unfinished = Path(folder, "inversion")
            write_tensors(tensors, unfinished, {KEY: description})
            os.replace(unfinished, file)
    except OSError as error:
        raise ValueError(
            f"Save Inversion: {file.name[:100]} could not be written ({error}). Free some space, or "
            "choose another name."
        ) from None


def _remove_abandoned(folder: Path) -> None:
    """Deletes what a save has left whose process was killed: nothing takes a day to write."""
    for unfinished in folder.glob(_UNFINISHED + "*"):
        if time.time() - unfinished.stat().st_mtime > _A_DAY:
            shutil.rmtree(unfinished, ignore_errors=True)


def load_inversion(file: Path, model: Any, purpose: str) -> Inversion:
    """The INVERSION in a file, for MODEL, whose self-attention becomes that of the inversion.

    Raises:
        ValueError: the file is none of ours, broken, of a newer version, or made with another checkpoint or a LoRA.
    """
    try:
        with safe_open(str(file), framework="pt") as content:
            described = read_description(content.metadata() or {})
            _check_shapes(described, {name: content.get_slice(name) for name in content.keys()})  # noqa: SIM118
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    # RuntimeError: torch cannot map a file that is larger than the memory, or the description is nested too deep
    except (OSError, SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{purpose}: {file.name} is not an inversion that this version can read ({str(error)[:300]}). Choose a "
            "file that Save Inversion has written."
        ) from None
    if not _all_finite(tensors[_TRAJECTORY]):
        raise ValueError(f"{purpose}: the latents in {file.name} are not all finite. Invert again.")
    model = remove(model) if described.attention is None else install(model, described.attention)
    options = described.options | {
        name.removeprefix(_OPTION): tensor for name, tensor in tensors.items() if name.startswith(_OPTION)
    }
    inversion = Inversion(
        trajectory=tensors[_TRAJECTORY],
        timesteps=described.timesteps,
        sigmas=described.sigmas,
        convention=described.convention,
        source=[[tensors[_EMBEDDING], options]],
        model=model,
        identity=described.identity,
        mask=tensors.get(_MASK),
    )
    check_conditioning(inversion.source, "source", purpose)
    _check_model(inversion, described, purpose)
    return inversion


def _all_finite(trajectory: Tensor) -> bool:
    """One frame at a time: the file is mapped, and may be larger than the memory."""
    frames = trajectory.flatten(0, 1)
    progress = comfy.utils.ProgressBar(len(frames))
    for frame in frames:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update(1)
        if not bool(torch.isfinite(frame).all()):
            return False
    return True


def _check_model(inversion: Inversion, described: Description, purpose: str) -> None:
    found = len(inversion.model.patches)
    if found != described.patches:
        raise ValueError(
            f"{purpose}: the INVERSION was made with a MODEL that has {described.patches} weights changed by a LoRA, "
            f"but this one has {found}. Connect the MODEL with exactly the LoRAs of the inversion (none if it had "
            "none)."
        )
    check_identity(inversion.model, described.identity, purpose)
    ours, theirs = inversion.model.model.model_config.unet_config.get("context_dim"), inversion.source[0][0].shape[-1]
    if ours not in (None, theirs):
        raise ValueError(
            f"{purpose}: the prompt of the INVERSION has {theirs} numbers per token, but this MODEL reads {ours}, so "
            "the file has been altered. Invert again."
        )
    check_noise_levels(inversion.model, inversion, purpose)


def _check_shapes(described: Description, slices: dict[str, Any]) -> None:
    """Raise unless the tensors are those of an inversion; nothing of them has been read yet."""
    shapes = {name: (list(found.get_shape()), found.get_dtype()) for name, found in slices.items()}
    if _TRAJECTORY not in shapes or _EMBEDDING not in shapes:
        raise ValueError("it has no trajectory or no prompt")
    odd = [name for name in shapes if name not in (_TRAJECTORY, _EMBEDDING, _MASK) and not name.startswith(_OPTION)]
    if odd:
        raise ValueError(f"it holds other tensors: {', '.join(odd)[:100]}")
    shape, dtype = shapes[_TRAJECTORY]
    steps = len(described.timesteps) + 1
    if len(shape) != 5 or shape[0] != steps or shape[2] != 4 or min(shape) < 1 or dtype not in ("F32", "F16"):
        raise ValueError(
            f"its trajectory is {shape} of {dtype}; [{steps}, frames, 4, height, width] of F32 or F16 is needed"
        )
    frames = shape[1]
    shape, dtype = shapes.get(_MASK, ([1, 1, 1], "F32"))
    if len(shape) != 3 or shape[0] not in (1, frames) or min(shape) < 1 or dtype != "F32":
        raise ValueError(f"its mask is {shape} of {dtype}; [1 or {frames}, height, width] of F32 is needed")
    for name, (shape, dtype) in shapes.items():
        if name not in (_TRAJECTORY, _MASK) and (math.prod(shape) > _MOST_OF_A_PROMPT or dtype not in TYPES.values()):
            raise ValueError(f"'{name}' is {shape} of {dtype}, which cannot be part of a prompt")
    shape = shapes[_EMBEDDING][0]
    if len(shape) != 3 or shape[0] != 1 or min(shape) < 1:
        raise ValueError(f"its prompt is {shape}; [1, tokens, width] is needed")
