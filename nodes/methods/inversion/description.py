"""What the file of an inversion says of itself, in JSON. It may come from anyone, so nothing in it is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ....stem_kernels.ddim import TRAIN_TIMESTEPS
from ..attention.frame_context import FrameContextAttention
from ..attention.method import SelfAttentionMethod
from ..stem.attention import StemSelfAttention
from ..stem.settings import MOST_BASES, MOST_FRAMES_PER_BATCH, MOST_ITERATIONS, StemSettings
from .inversion import ModelIdentity, NoiseConvention

KEY = "stem_inversion"
VERSION = 2
PlainValue = str | int | float | bool | None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


# Files of version 1 have neither of a method's `frames_per_batch` and `decided`.
_FramesPerBatch = Annotated[int | None, Field(ge=0, le=MOST_FRAMES_PER_BATCH)]


class _StemBases(_Part):
    kind: Literal["stem"]
    settings: StemSettings
    frames_per_batch: _FramesPerBatch = 0
    decided: bool = False

    @field_validator("settings")
    @classmethod
    def _within_what_the_node_offers(cls, settings: StemSettings) -> StemSettings:
        if settings.em.num_bases > MOST_BASES or max(settings.em.iterations, settings.warm_start) > MOST_ITERATIONS:
            raise ValueError(f"STEM Bases has more than {MOST_BASES} bases or {MOST_ITERATIONS} iterations")
        for name in ("scope_frames", "warm_start", "seed", "explained_energy"):
            if getattr(settings, name) < 0:
                raise ValueError(f"{name} of STEM Bases is {getattr(settings, name)}, below 0")
        return settings


class _FrameContext(_Part):
    kind: Literal["frames"]
    references: tuple[int | Literal["first", "mid", "last"], ...] | None
    finest_level: int = Field(ge=0, le=3)
    frames_per_batch: _FramesPerBatch = None
    decided: bool = False


class Description(_Part):
    """See `Inversion` for the fields. family, fingerprint: of its `ModelIdentity`. patches: how many weights a LoRA had
    changed. options: of the source's conditioning, as far as they are plain values."""

    version: int = Field(ge=1, le=VERSION)
    timesteps: tuple[Annotated[int, Field(ge=0, lt=TRAIN_TIMESTEPS)], ...] = Field(min_length=1)
    sigmas: tuple[Annotated[float, Field(gt=0)], ...]
    convention: NoiseConvention
    method: Annotated[_StemBases | _FrameContext, Field(discriminator="kind")] | None
    family: str
    fingerprint: tuple[float, ...] | None
    patches: int
    options: dict[str, PlainValue]

    @model_validator(mode="after")
    def _belong_together(self) -> Description:
        if list(self.timesteps) != sorted(set(self.timesteps)):
            raise ValueError("its timesteps are not ascending")
        if len(self.sigmas) != len(self.timesteps) + 1:
            raise ValueError("its noise levels do not match its timesteps")
        return self

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.family, self.fingerprint)

    @property
    def attention(self) -> SelfAttentionMethod | None:
        """The method that was on the self-attention of the MODEL."""
        if self.method is None:
            return None
        if isinstance(self.method, _StemBases):
            method: Any = StemSelfAttention.from_settings(self.method.settings)
        else:
            method = FrameContextAttention(self.method.references, self.method.finest_level)
        return replace(method, frames_per_batch=self.method.frames_per_batch, decided=self.method.decided)


def read_description(metadata: Mapping[str, str]) -> Description:
    """The description in the metadata of a file.

    Raises:
        ValueError: there is none, it is of a newer version, or something in it is not what `describe` writes.
    """
    if KEY not in metadata:
        raise ValueError("it has no description of an inversion")
    data = json.loads(metadata[KEY])
    version = data.get("version") if isinstance(data, dict) else None
    if type(version) is int and version > VERSION:
        raise ValueError(f"it is of version {version}, this pack knows up to {VERSION}; update the pack")
    try:
        described = Description.model_validate_json(metadata[KEY])
    except ValidationError as error:
        raise ValueError(_first_fault(error)) from None
    # what has a default in the settings must still be there: an older or newer pack may have meant another
    since_version_2 = {"method.frames_per_batch", "method.decided"} if version == 1 else set()
    if missing := sorted(_fields(described.model_dump()) - _fields(data) - since_version_2):
        raise ValueError(f"it lacks {', '.join(missing)[:200]}")
    return described


def describe(method: SelfAttentionMethod | None, **fields: Any) -> str:
    """The description as JSON, from the method on the self-attention of the MODEL and the fields of `Description`.

    Raises:
        ValueError: the method cannot be written.
    """
    if isinstance(method, StemSelfAttention):
        written = {"kind": "stem", "settings": asdict(method.settings)}
    elif isinstance(method, FrameContextAttention):
        written = {"kind": "frames", "references": method.references, "finest_level": method.finest_level}
    elif method is None:
        written = None
    else:
        raise ValueError(
            f"the INVERSION was made with {method.name}, which cannot be saved. Invert with STEM Bases, Frame Context "
            "or the bare MODEL"
        )
    if written is not None:
        written |= {"frames_per_batch": method.frames_per_batch, "decided": method.decided}
    fields |= {"version": VERSION, "method": written}
    return json.dumps({name: fields[name] for name in Description.model_fields})


def _fields(data: object, path: str = "") -> set[str]:
    """The paths of all fields; what lies in `options` is anybody's."""
    if not isinstance(data, dict) or path == "options":
        return {path}
    return {path} | {below for name, value in data.items() for below in _fields(value, f"{path}.{name}".lstrip("."))}


def _first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, in a clause."""
    fault = error.errors(include_url=False)[0]
    # beside the fields, the path names which of several kinds was tried
    path = [str(part) for part in fault["loc"] if part not in ("stem", "frames", "str", "int", "float", "bool")]
    where = ".".join(path).replace("method.settings", "STEM Bases").replace(".literal['first','mid','last']", "")
    if fault["type"] == "missing":
        return f"it has no {where}"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where} is a field that this version does not know"
    if fault["type"] == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    if path[0] == "options":
        needed = "plain values are needed"
    elif "references" in path:
        needed = "frame offsets, first, mid or last are expected"
    else:
        needed = fault["msg"].replace("Input should", "it should")
    return f"{where} is {fault['input']!r:.50}; {needed}"
