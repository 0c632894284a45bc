"""The node in the host's own classes: what it shows, what it returns, what it refuses."""

from __future__ import annotations

import io
import os
from fractions import Fraction

import comfy.model_management
import comfy.utils
import execution
import folder_paths
import numpy as np
import pytest
import torch
from comfy_api.latest import InputImpl, Types
from comfy_extras.nodes_video import CreateVideo, GetVideoComponents, LoadVideo
from comfyui_stem.nodes.folders import EXAMPLE
from comfyui_stem.nodes.video import VideoError
from comfyui_stem.nodes.video_load import VideoLoad
from comfyui_stem.tests.nodes.odd_names import odd_names
from comfyui_stem.tools.robustness.inputs.clip_factory import LOSSLESS, NTSC_FILM, read_number, write_clip
from hypothesis import HealthCheck, given, settings

REQUEST = {
    "start": 0.0,
    "frame_cap": 0,
    "width": 0,
    "height": 0,
    "start_unit": "frame",
    "every_nth": 1,
    "target_fps": 0.0,
    "fit": "crop",
}
FRAMES = 24


@pytest.fixture(autouse=True)
def input_folder(tmp_path):
    before = folder_paths.get_input_directory()
    folder = tmp_path / "input"
    folder.mkdir()
    folder_paths.set_input_directory(str(folder))
    yield folder
    folder_paths.set_input_directory(before)


@pytest.fixture
def clip(input_folder):
    sound = np.linspace(-0.5, 0.5, 8000)[None]
    options = {"g": "8", "bf": "2", "b_strategy": "0", "crf": "10"}
    return write_clip(input_folder / "clip.mov", FRAMES, audio=sound, options=options).name


def load(file, **request):
    return VideoLoad.execute(file=file, **{**REQUEST, **request}).args


def numbers(images):
    return [read_number(image) for image in images]


def inputs():
    schema = VideoLoad.INPUT_TYPES()
    return {**schema["required"], **schema["optional"]}


def test_the_file_is_chosen_like_in_the_hosts_own_node(clip, input_folder):
    (input_folder / "notes.txt").write_text("no video")
    (input_folder / "folder.mp4").mkdir()
    ours, theirs = VideoLoad.INPUT_TYPES()["required"]["file"], LoadVideo.INPUT_TYPES()["required"]["file"]
    assert theirs[1]["options"] == [clip] and ours[1]["options"] == [clip, EXAMPLE]
    assert ours[1]["video_upload"] is theirs[1]["video_upload"] is True


def test_every_input_and_output_has_a_tooltip():
    assert all(options.get("tooltip") for _, options in inputs().values())
    VideoLoad.GET_SCHEMA()
    assert all(VideoLoad._OUTPUT_TOOLTIPS)


def test_names_and_their_order_are_stable():
    assert list(inputs()) == ["file", *REQUEST, "video", "crop_x", "crop_y", "background", "file_name"]
    VideoLoad.GET_SCHEMA()
    assert VideoLoad.RETURN_TYPES == ["IMAGE", "FLOAT", "INT", "AUDIO", "VIDEO", "MASK"]
    assert VideoLoad.RETURN_NAMES == ["images", "fps", "frame_count", "audio", "video", "mask"]
    assert VideoLoad.SCHEMA.node_id == "STEMVideoLoad"


def test_the_outputs_agree_with_each_other(clip):
    images, fps, count, audio, video, mask = load(clip, start=5.0, frame_cap=6, every_nth=2, width=32)
    assert numbers(images) == [5, 7, 9, 11, 13, 15]
    assert images.shape == (count, 24, 32, 3) == (6, 24, 32, 3)
    assert fps == float(NTSC_FILM / 2)
    assert audio["waveform"].shape == (1, 1, round(6 / fps * audio["sample_rate"]))
    components = video.get_components()
    assert torch.equal(components.images, images)
    assert components.frame_rate == NTSC_FILM / 2
    assert components.audio is audio
    assert torch.equal(mask, torch.zeros(1, 24, 32))


def test_a_saved_video_holds_exactly_the_returned_frames(clip, tmp_path):
    _, fps, _, audio, video, _ = load(clip, start=5.0, frame_cap=6, width=64, height=48)
    video.save_to(str(tmp_path / "saved.mp4"))
    saved, saved_audio, saved_fps = GetVideoComponents.execute(
        InputImpl.VideoFromFile(str(tmp_path / "saved.mp4"))
    ).args[:3]
    assert numbers(saved) == list(range(5, 11))
    assert saved_fps == pytest.approx(fps, abs=1e-3)
    assert saved_audio["waveform"].shape[-1] >= audio["waveform"].shape[-1] - 1024


def test_a_silent_clip_goes_through_the_hosts_nodes(input_folder, tmp_path):
    write_clip(input_folder / "silent.mkv", 4, **LOSSLESS)
    images, fps, _, audio, video, _ = load("silent.mkv")
    assert audio is None
    for number, result in enumerate((video, CreateVideo.execute(images, fps, audio).args[0])):
        path = tmp_path / f"{number}.mp4"
        result.save_to(str(path))
        assert GetVideoComponents.execute(InputImpl.VideoFromFile(str(path))).args[0].shape[0] == 4


@pytest.mark.parametrize(
    ("rate", "typed"), [(NTSC_FILM, 23.976), (Fraction(30000, 1001), 29.97), (Fraction(60000, 1001), 59.94)]
)
def test_a_broadcast_rate_can_be_typed(input_folder, rate, typed):
    write_clip(input_folder / "clip.mkv", FRAMES, rate=rate, **LOSSLESS)
    images, fps, *_ = load("clip.mkv", target_fps=typed)
    assert numbers(images) == list(range(FRAMES))
    assert fps == float(rate)


def test_a_time_in_decimals_means_that_time(input_folder):
    write_clip(input_folder / "clip.mov", 48, options={"crf": "0"})
    # Frame 24 begins at 1.001 s exactly, which no binary fraction is.
    images, *_ = load("clip.mov", start_unit="seconds", start=1.001, frame_cap=1)
    assert numbers(images) == [24]


def test_a_fractional_frame_number_is_refused(clip):
    with pytest.raises(VideoError, match="start is 2.5, but start_unit is 'frame'.*set start_unit to 'seconds'"):
        load(clip, start=2.5)


def test_no_step_at_all_is_refused_instead_of_crashing(clip):
    with pytest.raises(VideoError, match="every_nth is 0.*Use 1 or more"):
        load(clip, every_nth=0)


@pytest.mark.parametrize("name", ["../secret.mov", "clip.mov [output]", "x/../../secret.mov", "link.mov"])
def test_paths_beyond_the_input_folder_are_refused_everywhere(clip, input_folder, tmp_path, name):
    secret = write_clip(tmp_path / "secret.mov", 2)
    (input_folder / "link.mov").symlink_to(secret)
    (input_folder / "x").mkdir()
    for path in (name, str(secret)):
        assert "outside the input folder" in VideoLoad.validate_inputs(file=path)
        for call in (load, lambda file: VideoLoad.fingerprint_inputs(file=file, **REQUEST)):
            with pytest.raises(VideoError, match="outside the input folder"):
                call(path)


NAMES = odd_names("clip.mov", "clip.mov.", "link.mov", "folder", "concat:clip.mov", "file:clip.mov")


@given(name=NAMES)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_name_only_files_of_the_input_folder_are_read(clip, input_folder, tmp_path, name):
    (tmp_path / "clip.mov").write_bytes(b"secret")
    for link, target in (("link.mov", tmp_path / "clip.mov"), ("folder", tmp_path)):
        if not (input_folder / link).is_symlink():
            (input_folder / link).symlink_to(target)
    told = VideoLoad.validate_inputs(file=name)
    if told is True:
        size = VideoLoad.fingerprint_inputs(file=name, **REQUEST).rpartition(":")[2]
        assert int(size) == (input_folder / clip).stat().st_size
    else:
        assert any(reason in told for reason in ("outside the input folder", "There is no file", "No video is chosen"))


def test_files_that_exist_are_valid_and_others_named(clip):
    assert VideoLoad.validate_inputs(file=clip) is True
    assert VideoLoad.validate_inputs(file=f"{clip} [input]") is True
    assert "There is no file 'gone.mp4'" in VideoLoad.validate_inputs(file="gone.mp4")
    for nothing in ("", None, 7, ["clip.mov"]):
        assert "No video is chosen" in VideoLoad.validate_inputs(file=nothing)


def test_a_changed_file_runs_the_node_again(clip, input_folder):
    def fingerprint():
        return VideoLoad.fingerprint_inputs(file=clip, **REQUEST)

    before = fingerprint()
    assert fingerprint() == before
    write_clip(input_folder / clip, 3)
    os.utime(input_folder / clip, (1, 1))
    assert fingerprint() != before


def test_a_name_by_wire_is_read_instead_of_the_file(clip):
    assert VideoLoad.validate_inputs(file="gone.mp4", file_name=None) is True
    assert VideoLoad.fingerprint_inputs(file="gone.mp4", **REQUEST, file_name=None) == "connected"
    images, *_ = load("gone.mp4", file_name=clip, start=20.0)
    assert numbers(images) == [20, 21, 22, 23]
    for name in (None, 5, "", "../clip.mov", "gone.mp4"):
        with pytest.raises(VideoError):
            load(clip, file_name=name)


def test_transparent_parts_show_the_background_and_come_as_a_mask(input_folder):
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[8:] = 255
    write_clip(input_folder / "clear.mov", 2, size=(16, 16), codec="png", pix_fmt="rgba", pictures=[picture] * 2)
    for background, value in (("black", 0), ("white", 1)):
        images, *_, video, mask = load("clear.mov", background=background)
        assert (images[:, :8] == value).all() and (images[:, 8:] == 1).all()
        assert (mask[:, :8] == 1).all() and (mask[:, 8:] == 0).all() and mask.shape == (2, 16, 16)
        assert torch.equal(video.get_components().images, images)


def test_the_part_that_crop_keeps_can_be_chosen(input_folder):
    picture = np.zeros((16, 48, 3), np.uint8)
    picture[:, 16:32], picture[:, 32:] = 100, 200
    write_clip(input_folder / "wide.mkv", 1, size=(48, 16), pictures=[picture], **LOSSLESS)
    shown = [load("wide.mkv", width=16, height=16, crop_x=x, crop_y=0.1)[0] for x in (0.0, 0.5, 1.0)]
    assert [images.mul(255).round().unique().tolist() for images in shown] == [[0], [100], [200]]


def test_a_connected_video_makes_the_file_irrelevant(clip):
    # The host leaves a linked input's value out: it is None here.
    assert VideoLoad.validate_inputs(file="gone.mp4", video=None) is True
    assert VideoLoad.fingerprint_inputs(file="gone.mp4", **REQUEST, video=None) == "connected"
    video = LoadVideo.execute(clip).args[0]
    images, *_ = load("gone.mp4", video=video, start=20.0)
    assert numbers(images) == list(range(20, FRAMES))


def test_a_connected_file_is_streamed_and_gives_what_the_file_gives(clip, input_folder, monkeypatch):
    monkeypatch.setattr(InputImpl.VideoFromFile, "get_components", lambda video: pytest.fail("decodes the whole file"))
    path = str(input_folder / clip)
    for content in (path, io.BytesIO((input_folder / clip).read_bytes())):
        ours = load(None, video=InputImpl.VideoFromFile(content), start=9.0, frame_cap=3)
        assert torch.equal(ours[0], load(clip, start=9.0, frame_cap=3)[0])
        assert ours[3]["waveform"].shape == (1, 1, round(3 / ours[1] * 8000))


def test_a_connected_video_made_of_pictures_is_taken_as_it_is():
    images = torch.rand(10, 16, 24, 3)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(25)))
    result = load(None, video=video, start=2.0, frame_cap=4)
    assert torch.equal(result[0], images[2:6])
    assert result[1:4] == (25.0, 4, None)


@pytest.mark.parametrize(
    "edits",
    [
        {"has_pending_frame_edits": lambda video: True},
        {"get_active_trim_window": lambda video: (1.0, 0.0)},
        {"as_trimmed": lambda video: None},
    ],
)
def test_a_video_that_is_edited_but_not_yet_written_is_taken_as_edited(clip, input_folder, edits):
    class Edited:
        def get_stream_source(self):
            return str(input_folder / clip)

        def get_components(self):
            components = InputImpl.VideoFromFile(self.get_stream_source()).get_components()
            components.images = components.images[10:]
            return components

    for name, method in edits.items():
        setattr(Edited, name, method)
    images, *_ = load(None, video=Edited())
    assert numbers(images) == list(range(10, FRAMES))


@pytest.mark.skipif(not hasattr(InputImpl.VideoFromFile, "as_trimmed"), reason="this host cannot trim a VIDEO")
def test_a_video_that_the_host_has_trimmed_is_taken_as_trimmed(clip, input_folder):
    trimmed = InputImpl.VideoFromFile(str(input_folder / clip)).as_trimmed(0.25, 0.5)
    expected = trimmed.get_components().images
    images, fps, count, *_ = load(None, video=trimmed)
    assert numbers(images) == numbers(expected) and 0 < count < FRAMES
    assert fps == pytest.approx(float(trimmed.get_frame_rate()))


def test_the_hosts_interrupt_and_progress_bar_are_served(clip, monkeypatch):
    steps = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, *_, **__: steps.append((done, total)))
    load(clip, frame_cap=4)
    assert steps[-1] == (4, 4)
    comfy.model_management.interrupt_current_processing()
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            load(clip)
    finally:
        comfy.model_management.interrupt_current_processing(False)


def test_comfyui_shows_no_path_of_modules_in_front_of_a_refusal():
    assert execution.full_type_name(VideoError) == "VideoError"
