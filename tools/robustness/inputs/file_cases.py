"""Clips, names and files of inversions that are odd, broken or lead elsewhere."""

from __future__ import annotations

import pickle
import shutil
import struct
from collections.abc import Callable
from functools import partial

import safetensors.torch
import torch

from ..host_under_test import HostUnderTest, Prompt
from .clips import FRAMES, LONG
from .edit_cases import good_edit, inversion_of, node
from .odd_input import RESULT, OddInput, clip_in

VIDEO = "Video Load"
LOAD = "Load Inversion"
SAVE = "Save Inversion"
SAVED = "good_00001_.safetensors"
REQUEST = {"start_unit": "frame", "start": 0, "frame_cap": 0, "every_nth": 1, "target_fps": 0}
ELSEWHERE = "lies outside the input folder"
NOTHING_ELSE = "nothing else is read"


def video(file: object, host: HostUnderTest, **request: object) -> Prompt:
    """Loads a file and saves its frames."""
    inputs = {"file": file, "width": 0, "height": 0, "fit": "crop", **REQUEST, **request}
    return {
        "1": node("STEMVideoLoad", **inputs),
        RESULT: node("SaveImage", images=["1", 0], filename_prefix="video"),
    }


def good_video(host: HostUnderTest) -> Prompt:
    return video(clip_in(host, "good.mp4"), host)


def of_clip(name: str, host: HostUnderTest, **request: object) -> Prompt:
    return video(clip_in(host, name), host, **request)


def clip_case(name: str, clip: str, **expected: object) -> OddInput:
    request = expected.pop("request", {})
    return OddInput(name, VIDEO, partial(of_clip, clip, **request), good_video, **expected)


def elsewhere(name: object, host: HostUnderTest) -> Prompt:
    """A name beside a clip outside the input folder, one in the output folder, and a link to the first."""
    clip_in(host, "good.mp4")
    for target in ("secret.mp4", "output/secret.mp4"):
        shutil.copyfile(host.folder("input") / "good.mp4", host.base / target)
    link = host.folder("input") / "link.mp4"
    if not link.is_symlink():
        link.symlink_to(host.base / "secret.mp4")
    return video(name(host) if callable(name) else name, host)


NAMES = {
    "a name with ..": ("../secret.mp4", ELSEWHERE),
    "a name with .. in its middle": ("x/../../secret.mp4", ELSEWHERE),
    "an absolute path": (lambda host: str(host.base / "secret.mp4"), ELSEWHERE),
    "a link that leads out of the folder": ("link.mp4", ELSEWHERE),
    "a name marked [output]": ("secret.mp4 [output]", ELSEWHERE),
    "a name marked [temp]": ("secret.mp4 [temp]", ELSEWHERE),
    "a null byte in the name": ("good.mp4\0.png", ELSEWHERE),
    "a name of 5,000 letters": ("a" * 5000 + ".mp4", "There is no file 'aaa…'"),
    "a line break in the name": ("good\n.mp4", "There is no file"),
    "a drive letter": ("C:\\Windows\\secret.mp4", "There is no file|outside"),
    "a Windows device": ("NUL", "There is no file|outside"),
    "a number in place of a name": (7, "No video is chosen"),
    "no name": ("", "No video is chosen"),
}

CLIP_CASES = (
    clip_case("text named .mp4", "text.mp4", says="is not a readable video.*convert it"),
    clip_case("0 bytes", "empty.mp4", says=r"is empty \(0 bytes\).*upload the video again"),
    clip_case("cut off in the middle", "cut.mp4", says="breaks off after .*set frame_cap to 6 or less"),
    clip_case(
        "cut off in the middle, with a frame_cap before that",
        "cut.mp4",
        request={"frame_cap": 5},
        shape=(5, 48, 64),
        numbers=range(5),
    ),
    clip_case("cut off before its index", "cut_before_index.mp4", says="cut off before its index: copy or upload"),
    clip_case("second half overwritten", "damaged.mp4", says="breaks off after .*Copy or upload the file again"),
    clip_case("0 frames", "no_frames.mp4", says="a video stream with 0 frames"),
    clip_case("1 frame", "one_frame.mp4", shape=(1, 48, 64), numbers=[0]),
    clip_case("sound alone", "sound_alone.mp4", says="sound but no video. Choose a video file"),
    clip_case("10 bits a channel", "ten_bits.mp4", shape=(3, 48, 64), numbers=range(3)),
    clip_case("turned by 90°", "turned.mp4", shape=(3, 64, 48), numbers=[0, 8, 128]),
    clip_case("variable frame rate", "variable_rate.mp4", shape=(6, 48, 64), numbers=range(6)),
    clip_case("71×53 pixels", "odd_size.mkv", shape=(3, 48, 64), numbers=range(3)),
    clip_case(
        f"{LONG:,} frames, frame_cap 8", "long.mp4", request={"frame_cap": 8}, shape=(8, 48, 64), numbers=range(8)
    ),
    clip_case(
        f"{LONG:,} frames, frame_cap 8 from frame 9,990 on",
        "long.mp4",
        request={"frame_cap": 8, "start": 9990},
        shape=(8, 48, 64),
        numbers=[number % 16 for number in range(9990, 9998)],
    ),
    clip_case("a start behind the end", "good.mp4", request={"start": 500}, says="has 24 frames.*below 24"),
    clip_case("name in other scripts", "ünï codé 视频 😀.mp4", shape=(FRAMES, 48, 64), numbers=range(FRAMES)),
    *(OddInput(name, VIDEO, partial(elsewhere, value), good_video, says=says) for name, (value, says) in NAMES.items()),
)


def load(file: object, host: HostUnderTest) -> Prompt:
    """Loads an inversion and reconstructs it."""
    folder = host.folder("output/inversions")
    if not (folder / SAVED).exists():
        host.client.run(save("good", host))
    return inversion_of(host, node("STEMLoadInversion", file=file, model=["model", 0]))


def good_inversion(host: HostUnderTest) -> Prompt:
    return load(f"{SAVED} [output]", host)


def named_elsewhere(file: object, host: HostUnderTest) -> Prompt:
    """A name beside an inversion outside the folders, and a link to it."""
    prompt = load(file(host) if callable(file) else file, host)
    shutil.copyfile(host.base / "output" / "inversions" / SAVED, host.base / "secret.safetensors")
    link = host.folder("input/inversions") / "link.safetensors"
    if not link.is_symlink():
        link.symlink_to(host.base / "secret.safetensors")
    return prompt


INVERSION_NAMES = {
    "a name with ..": ("../../secret.safetensors", NOTHING_ELSE),
    "an absolute path": (lambda host: str(host.base / "secret.safetensors"), NOTHING_ELSE),
    "a link that leads out of the folder": ("link.safetensors", NOTHING_ELSE),
    "a name with .. marked [output]": ("../../secret.safetensors [output]", NOTHING_ELSE),
    "a name marked [temp]": ("x.safetensors [temp]", NOTHING_ELSE),
    "a null byte in the name": ("x\0.safetensors", NOTHING_ELSE),
    "a name of 5,000 letters": ("a" * 5000 + ".safetensors", f"{NOTHING_ELSE}|no longer exists"),
    "a line break in the name": ("x\n.safetensors", "no longer exists"),
    "a Windows device": ("NUL.safetensors", f"{NOTHING_ELSE}|no longer exists"),
    "a dot behind the name": (f"{SAVED}. [output]", NOTHING_ELSE),
    "a file of another kind": ("x.pkl", NOTHING_ELSE),
    "a number in place of a name": (7, "which is not a name"),
}


class Touch:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (self.path, "w")


def written(make: Callable[[HostUnderTest, bytes], bytes], host: HostUnderTest) -> Prompt:
    """A file in the input folder, made of the content of a good one."""
    load("x", host)
    content = (host.base / "output" / "inversions" / SAVED).read_bytes()
    (host.folder("input/inversions") / "odd.safetensors").write_bytes(make(host, content))
    return load("odd.safetensors", host)


def header_claiming_terabytes(host: HostUnderTest, content: bytes) -> bytes:
    count = 1 << 40
    header = (
        '{"trajectory":{"dtype":"F32","shape":[3,%d,4,8,8],"data_offsets":[0,%d]}}' % (count, count * 3 * 256 * 4)  # noqa: UP031
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


def another_shape(host: HostUnderTest, content: bytes) -> bytes:
    tensors = safetensors.torch.load(content)
    with safetensors.safe_open(host.base / "output" / "inversions" / SAVED, "pt") as file:
        metadata = file.metadata()
    return safetensors.torch.save(tensors | {"trajectory": torch.zeros(3, 2, 16, 8, 8)}, metadata)


UNREADABLE = (
    "odd.safetensors is not an inversion that this version can read.*Choose a file that Save Inversion has written"
)
CONTENTS = {
    "0 bytes": lambda host, content: b"",
    "cut off in the middle": lambda host, content: content[: len(content) // 2],
    "cut off within its header": lambda host, content: content[:100],
    "a pickle with another name": lambda host, content: pickle.dumps(Touch(str(host.base / "unpickled"))),
    "a header that claims terabytes": header_claiming_terabytes,
    "a header of 2⁶³ bytes": lambda host, content: struct.pack("<Q", 1 << 63) + b"{}",
    "latents of another shape": another_shape,
    "a checkpoint": lambda host, content: safetensors.torch.save({"weight": torch.zeros(3)}),
}

INVERSION_CASES = (
    OddInput("as it was saved", LOAD, good_inversion, good_inversion, shape=(3, 64, 64)),
    *(
        OddInput(name, LOAD, partial(named_elsewhere, value), good_inversion, says=says)
        for name, (value, says) in INVERSION_NAMES.items()
    ),
    *(OddInput(name, LOAD, partial(written, make), good_inversion, says=UNREADABLE) for name, make in CONTENTS.items()),
)


def save(prefix: object, host: HostUnderTest) -> Prompt:
    saving = node("STEMSaveInversion", inversion=["sampler", 0], filename_prefix=prefix)
    return inversion_of(host) | {"save": saving}


def save_behind_link(prefix: str, host: HostUnderTest) -> Prompt:
    link = host.folder("output/inversions") / "link"
    if not link.is_symlink():
        link.symlink_to(host.folder("elsewhere"), target_is_directory=True)
    return save(prefix, host)


PREFIXES = {
    "a beginning with ..": ("../x", "leads out of the folder inversions"),
    "an absolute path": ("/tmp/x", "leads out of the folder inversions"),
    "a null byte": ("x\0", "leads out of the folder inversions"),
    "a beginning of 5,000 letters": ("a" * 5000, "aaa….* could not be written .*choose another name"),
    "nothing": ("", "leads out of the folder inversions"),
}
SAVE_CASES = (
    *(OddInput(name, SAVE, partial(save, value), good_edit, says=says) for name, (value, says) in PREFIXES.items()),
    OddInput(
        "a link that leads out of the folder", SAVE, partial(save_behind_link, "link/x/y"), good_edit, says="leads out"
    ),
    OddInput("a beginning in other scripts", SAVE, partial(save, "ünï/视频 😀"), good_edit, shape=(3, 64, 64)),
)

FILES: tuple[OddInput, ...] = (*CLIP_CASES, *INVERSION_CASES, *SAVE_CASES)
