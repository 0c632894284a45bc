"""Inversions written and read again, and files that are not what they claim to be."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import time
from dataclasses import replace
from pathlib import Path

import folder_paths
import pytest
import torch
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install, installed_method
from comfyui_stem.nodes.methods.inversion import file as inversion_file
from comfyui_stem.nodes.methods.inversion.description import KEY
from comfyui_stem.nodes.methods.inversion.file import load_inversion, save_inversion
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.inversion.writing import write_tensors
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS, StemSettings
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings, edit
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.robustness.faults.full_disk import CannotMount, full, small_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SMALL = StemSettings(em=EMSettings(num_bases=8), explained_energy=0.5, seed=2**63)
METHODS = {
    "bare": None,
    "stem": StemSelfAttention.from_settings(SMALL),
    "reference_code": StemSelfAttention.from_settings(PRESETS["reference_code"]),
    "two frames": FrameContextAttention((0, "mid"), 1),
    "all frames": FrameContextAttention(None),
}


def inverted(loaded, video, method=None):
    model = loaded.model if method is None else install(loaded.model, method)
    return invert(model, loaded.prompt("a hill"), video, 2, "next")


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return inverted(loaded, video, METHODS["stem"])


@pytest.fixture
def file(tmp_path, inversion):
    save_inversion(inversion, tmp_path / "kept.safetensors")
    return tmp_path / "kept.safetensors"


@pytest.mark.parametrize("name", METHODS)
def test_what_is_loaded_reconstructs_as_what_was_saved(loaded, video, tmp_path, name):
    before = inverted(loaded, video, METHODS[name])
    save_inversion(before, tmp_path / "x.safetensors")
    after = load_inversion(tmp_path / "x.safetensors", loaded.model, "Test")
    assert torch.equal(after.trajectory, before.trajectory)
    for same in ("timesteps", "sigmas", "convention", "identity", "stem"):
        assert getattr(after, same) == getattr(before, same)
    assert installed_method(after.model) == installed_method(before.model)
    results = [reconstruct(one, one.model, one.source) for one in (before, after)]
    assert torch.equal(*results)


@pytest.mark.parametrize("frames_per_batch", [0, 3, None])
def test_how_many_frames_go_through_at_a_time_is_kept(loaded, video, tmp_path, frames_per_batch):
    before = inverted(loaded, video, StemSelfAttention.from_settings(SMALL, frames_per_batch))
    save_inversion(before, tmp_path / "x.safetensors")
    method = installed_method(load_inversion(tmp_path / "x.safetensors", loaded.model, "Test").model)
    assert (method.frames_per_batch, method.decided) == (
        (len(video), True) if frames_per_batch == 0 else (frames_per_batch, False)
    )


def test_the_mask_of_the_inverted_latent_is_kept(loaded, inversion, tmp_path):
    mask = torch.rand(5, 64, 96)
    save_inversion(replace(inversion, mask=mask), tmp_path / "masked.safetensors")
    assert torch.equal(load_inversion(tmp_path / "masked.safetensors", loaded.model, "Test").mask, mask)


def test_many_edits_start_from_one_saved_inversion(loaded, inversion, file):
    again = load_inversion(file, loaded.model, "Test")
    results = [
        edit(loaded.model, one, loaded.prompt("a castle"), loaded.prompt(""), TokenFlowSettings(batch_size=2))
        for one in (inversion, again)
    ]
    assert torch.equal(*results)


def test_a_method_on_the_connected_model_gives_way_to_that_of_the_file(loaded, inversion, file):
    other = install(loaded.model, FrameContextAttention(None))
    assert installed_method(load_inversion(file, other, "Test").model) == installed_method(inversion.model)


def test_another_checkpoint_is_refused(loaded, file, monkeypatch):
    description = json.loads(safe_open(str(file), "pt").metadata()[KEY])
    description["fingerprint"][3] += 0.5
    rewritten(file, description)
    with pytest.raises(
        ValueError, match="Test: the INVERSION was made with a checkpoint (of another kind|whose weights differ)"
    ):
        load_inversion(file, loaded.model, "Test")


def test_a_lora_has_to_be_there_again(loaded, inversion, tmp_path):
    key = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"
    with_lora = loaded.model.clone()
    with_lora.add_patches({key: (torch.zeros_like(loaded.model.model.state_dict()[key]),)}, 0.5)
    save_inversion(replace(inversion, model=install(with_lora, METHODS["stem"])), tmp_path / "x.safetensors")
    load_inversion(tmp_path / "x.safetensors", with_lora, "Test")
    with pytest.raises(ValueError, match=r"a MODEL that has 1 weights changed by a LoRA, but this one has 0"):
        load_inversion(tmp_path / "x.safetensors", loaded.model, "Test")


DATA = Path(__file__).parents[3] / "data"
KEPT = {  # what the files of tests/data were made with
    "plain": None,
    "stem": StemSelfAttention.from_settings(
        replace(
            PRESETS["paper"].with_bases(12),
            preset="custom",
            explained_energy=0.5,
            seed=2**63,
            scope="anchor_frames",
            scope_frames=2,
        )
    ),
    "reference_code": StemSelfAttention.from_settings(PRESETS["reference_code"].with_bases(16)),
    "two_frames": FrameContextAttention((0, "mid"), 1),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_file_of_version_0_1_0_is_read_as_it_was_meant_and_written_again_with_what_is_new(loaded, tmp_path, name):
    kept = DATA / f"inversion_{name}.safetensors"
    inversion = load_inversion(kept, loaded.model, "Test")
    assert installed_method(inversion.model) == KEPT[name]
    assert inversion.timesteps == (1, 501)
    assert inversion.convention == ("current" if name == "plain" else "next")
    assert torch.equal(inversion.trajectory, load_file(kept)["trajectory"])
    assert torch.isfinite(reconstruct(inversion, inversion.model, inversion.source)).all()
    save_inversion(inversion, tmp_path / "again.safetensors")
    before, after = description_of(kept), description_of(tmp_path / "again.safetensors")
    assert (before.pop("version"), after.pop("version")) == (1, 2)
    if before["method"] is not None:
        # with bases decided anew in every run, with other frames never
        automatic = 0 if before["method"]["kind"] == "stem" else None
        assert (after["method"].pop("frames_per_batch"), after["method"].pop("decided")) == (automatic, False)
    assert after == before
    tensors = [load_file(one) for one in (kept, tmp_path / "again.safetensors")]
    assert all(torch.equal(tensors[1].pop(key), tensor) for key, tensor in tensors[0].items()) and not tensors[1]


def test_a_description_that_is_nested_without_end_is_refused(loaded, file):
    rewritten(file, "[" * 100_000)
    with pytest.raises(ValueError, match="Test: kept.safetensors is not an inversion"):
        load_inversion(file, loaded.model, "Test")


def test_a_field_of_the_settings_that_is_missing_is_not_taken_from_a_default(loaded, file):
    description = description_of(file)
    del description["method"]["settings"]["em"]["temperature"]
    rewritten(file, description)
    with pytest.raises(ValueError, match=r"it lacks method\.settings\.em\.temperature"):
        load_inversion(file, loaded.model, "Test")


def test_a_failed_save_leaves_no_file(inversion, tmp_path, monkeypatch):
    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inversion_file, "write_tensors", full)
    with pytest.raises(ValueError, match="x.safetensors could not be written .*No space left"):
        save_inversion(inversion, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_save_has_left_goes_with_a_later_save_and_one_under_way_stays(inversion, tmp_path):
    folders = {name: tmp_path / f".unfinished_{name}" for name in ("old", "new")}
    for folder in folders.values():
        folder.mkdir()
        (folder / ".tmpHalf").write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(folders["old"], (two_days_ago, two_days_ago))
    save_inversion(inversion, tmp_path / "x.safetensors")
    assert set(tmp_path.iterdir()) == {folders["new"], tmp_path / "x.safetensors"}


def test_while_a_file_is_written_nothing_is_beside_it_but_one_hidden_folder(inversion, tmp_path, monkeypatch):
    seen = []

    def look(tensors, file, metadata):
        write_tensors(tensors, file, metadata)
        seen.extend(entry.name for entry in tmp_path.iterdir())

    monkeypatch.setattr(inversion_file, "write_tensors", look)
    save_inversion(inversion, tmp_path / "x.safetensors")
    assert [name[:12] for name in seen] == [".unfinished_"]


def test_a_saved_inversion_may_be_read_by_whom_other_files_may_be(inversion, tmp_path):
    (tmp_path / "other").touch()
    save_inversion(inversion, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.fixture
def full_folder(tmp_path):
    """A folder on a real disk without room."""
    try:
        with small_disk(tmp_path), full(tmp_path):
            yield tmp_path
    except CannotMount as error:
        pytest.skip(str(error))


def test_on_a_full_disk_a_save_says_so_and_leaves_nothing(inversion, full_folder):
    large = replace(inversion, trajectory=inversion.trajectory.repeat(1, 9, 1, 1, 1))
    with pytest.raises(ValueError, match="x.safetensors could not be written .*No space left"):
        save_inversion(large, full_folder / "x.safetensors")
    assert [file.name for file in full_folder.iterdir()] == ["ballast"]


def test_on_a_full_disk_a_trajectory_in_a_file_says_so_and_leaves_nothing(loaded, video, full_folder, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(full_folder))
    with pytest.raises(ValueError, match="The trajectory needs a file of .*No space left"):
        invert(loaded.model, loaded.prompt("a hill"), video, 2, "next", "file")
    assert [file.name for file in full_folder.iterdir()] == ["ballast"]


@pytest.mark.parametrize(
    ("value", "kind"), [(object(), "object"), (torch.ones(2, dtype=torch.long), "tensor of torch.int64")]
)
def test_conditioning_that_cannot_be_written_is_named(inversion, tmp_path, value, kind):
    ((embedding, options),) = inversion.source
    odd = replace(inversion, source=[[embedding, options | {"control": value}]])
    with pytest.raises(ValueError, match=f"holds 'control', a {kind}, which cannot be saved"):
        save_inversion(odd, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_kept_in_a_file_of_half_the_size(loaded, inversion, file, tmp_path):
    half = replace(inversion, trajectory=inversion.trajectory.half())
    save_inversion(half, tmp_path / "half.safetensors")
    read = load_inversion(tmp_path / "half.safetensors", loaded.model, "Test")
    assert read.trajectory.dtype == torch.float16 and torch.equal(read.trajectory, half.trajectory)
    saved = file.stat().st_size - (tmp_path / "half.safetensors").stat().st_size
    assert abs(saved - half.trajectory.nbytes) < 64


def rewritten(file, description=None, tensors=None):
    """The file with another description or other tensors."""
    with safe_open(str(file), "pt") as content:
        metadata = content.metadata()
    if description is not None:
        metadata = {KEY: description if isinstance(description, str) else json.dumps(description)}
    save_file(load_file(file) | (tensors or {}), file, metadata=metadata)


def description_of(file):
    with safe_open(str(file), "pt") as content:
        return json.loads(content.metadata()[KEY])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 3}, "version 3, this pack knows up to 2; update"),
        ({"version": "1"}, "version is '1'; it should be a valid integer"),
        ({"version": True}, "version is True; it should be a valid integer"),
        ({"timesteps": []}, r"timesteps is \[\]"),
        ({"timesteps": [501, 1]}, "timesteps are not ascending"),
        ({"timesteps": [1, 5000]}, r"timesteps\.1 is 5000; it should be less than 1000"),
        ({"timesteps": [1, True]}, r"timesteps\.1 is True; it should be a valid integer"),
        ({"timesteps": [1, 501.0]}, r"timesteps\.1 is 501.0; it should be a valid integer"),
        ({"sigmas": [0.1]}, "noise levels do not match"),
        ({"sigmas": [0.1, float("nan"), 1.0]}, r"sigmas\.1 is nan; it should be a finite number"),
        ({"sigmas": [0.1, "0.5", 1.0]}, r"sigmas\.1 is '0.5'; it should be a valid number"),
        ({"convention": "sideways"}, "convention is 'sideways'; it should be 'next' or 'current'"),
        ({"family": None}, "family is None; it should be a valid string"),
        ({"fingerprint": ["x"]}, r"fingerprint\.0 is 'x'; it should be a valid number"),
        ({"options": {"a": [1]}}, r"options\.a is \[1\]; plain values are needed"),
        ({"method": 7}, "method is 7; it should be an object"),
        ({"method": {"kind": "pickle"}}, "'pickle'.*expected tags: 'stem', 'frames'"),
        ({"method": {"kind": "stem", "settings": {}}}, r"it lacks .*method\.settings\.clamp_to_tokens"),
        ({"method": {"kind": "stem", "settings": {}, "decided": True}}, r"it lacks method\.frames_per_batch"),
        *(
            (
                {"method": {"kind": "stem", "settings": {}, "frames_per_batch": number}},
                rf"frames_per_batch is {number}; ",
            )
            for number in (-1, 4097, 2.0)
        ),
        (
            {"method": {"kind": "frames", "references": ["__import__"], "finest_level": 0}},
            "frame offsets, first, mid or last are expected",
        ),
        ({"method": {"kind": "frames", "references": [0], "finest_level": 9}}, "finest_level is 9"),
        ({"sigmas": [0.1, 0.5, 10**400]}, "finite number"),
        ({"more": 1}, "more is a field that this version does not know"),
    ],
)
def test_a_description_that_is_wrong_is_refused_by_what_is_wrong(loaded, file, changes, why):
    rewritten(file, description_of(file) | changes)
    with pytest.raises(ValueError, match=f"Test: kept.safetensors is not an inversion .*{why}"):
        load_inversion(file, loaded.model, "Test")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"space": "elsewhere"}, r"STEM Bases\.space is 'elsewhere'; it should be 'features' or 'keys_per_head'"),
        ({"mass_weighted": 1}, r"STEM Bases\.mass_weighted is 1; it should be a valid boolean"),
        ({"scope_frames": -1}, r"scope_frames of STEM Bases is -1, below 0"),
        ({"explained_energy": "much"}, r"STEM Bases\.explained_energy is 'much'; it should be a valid number"),
        ({"em": None}, r"STEM Bases\.em is None; it should be an object"),
        ({"em": {**EMSettings().__dict__, "num_bases": 0}}, "at least 1 base"),
        ({"unknown": 1}, r"STEM Bases\.unknown is a field that this version does not know"),
        ({"explained_energy": 10**400}, r"explained_energy is 1000+; it should be a finite number"),
        ({"seed": 1.0}, r"STEM Bases\.seed is 1.0; it should be a valid integer"),
        ({"seed": True}, r"STEM Bases\.seed is True; it should be a valid integer"),
        (
            {"em": {**EMSettings().__dict__, "temperature": math.inf}},
            r"STEM Bases\.em\.temperature is inf; it should be a finite",
        ),
        ({"warm_start": 10**9}, "more than 4096 bases or 100 iterations"),
        ({"em": {**EMSettings().__dict__, "iterations": 10**9}}, "more than 4096 bases or 100 iterations"),
        ({"em": {**EMSettings().__dict__, "num_bases": 10**9}}, "more than 4096 bases or 100 iterations"),
    ],
)
def test_settings_of_bases_are_read_with_their_types(loaded, file, changes, why):
    description = description_of(file)
    description["method"]["settings"] |= changes
    rewritten(file, description)
    with pytest.raises(ValueError, match=why):
        load_inversion(file, loaded.model, "Test")


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"trajectory": torch.zeros(3, 5, 4, 8, 12, dtype=torch.float64)}, "of F64; .* of F32 or F16 is needed"),
        ({"trajectory": torch.zeros(4, 5, 4, 8, 12)}, r"\[3, frames, 4, height, width\]"),
        ({"embedding": torch.zeros(2, 77, 64)}, "its prompt is"),
        ({"embedding": torch.zeros(1, 77, 64, dtype=torch.int64)}, "which cannot be part of a prompt"),
        ({"more": torch.zeros(1)}, "holds other tensors: more"),
        ({"mask": torch.zeros(2, 64, 96)}, r"its mask is \[2, 64, 96\] of F32; \[1 or 5, height, width\] of F32 is"),
        ({"mask": torch.zeros(1, 64, 96, dtype=torch.uint8)}, "its mask is .* of U8; .* of F32 is needed"),
        ({"option.huge": torch.zeros(1 << 23, dtype=torch.float16)}, "which cannot be part of a prompt"),
    ],
)
def test_tensors_of_other_shapes_are_refused_before_they_are_read(loaded, file, tensors, why):
    rewritten(file, tensors=tensors)
    with pytest.raises(ValueError, match=why):
        load_inversion(file, loaded.model, "Test")


def test_a_prompt_that_the_model_cannot_read_is_refused(loaded, file):
    rewritten(file, tensors={"embedding": torch.zeros(1, 77, 10)})
    with pytest.raises(ValueError, match="Test: the prompt of the INVERSION has 10 numbers per token.*reads 64"):
        load_inversion(file, loaded.model, "Test")


def test_latents_that_are_not_finite_are_refused(loaded, file):
    trajectory = load_file(file)["trajectory"]
    trajectory[1, 2, 0, 3, 3] = torch.nan
    rewritten(file, tensors={"trajectory": trajectory})
    with pytest.raises(ValueError, match="not all finite"):
        load_inversion(file, loaded.model, "Test")


def test_conditioning_that_the_sampler_would_refuse_is_refused(loaded, file):
    rewritten(file, description_of(file) | {"options": {"start_percent": 0.5}})
    with pytest.raises(ValueError, match="Test: the source conditioning uses a range of the schedule"):
        load_inversion(file, loaded.model, "Test")


@pytest.mark.skipif(os.name == "nt", reason="a file with holes takes its whole size there")
def test_latents_of_a_terabyte_are_refused_before_memory_is_taken_for_them(loaded, file):
    metadata, embedding = {KEY: json.dumps(description_of(file))}, load_file(file)["embedding"].clone()
    shape = [3, 5_600_000, 4, 64, 64]
    end = math.prod(shape) * 4
    header = {
        "__metadata__": metadata,
        "trajectory": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]},
        "embedding": {"dtype": "F32", "shape": list(embedding.shape), "data_offsets": [end, end + embedding.nbytes]},
    }
    text = json.dumps(header).encode()
    with file.open("wb") as content:
        content.write(len(text).to_bytes(8, "little") + text + struct.pack("<f", math.nan))
        content.seek(8 + len(text) + end)
        content.write(embedding.float().numpy().tobytes())
    # systems that map such a file all the same find what is wrong with its first frame
    with pytest.raises(ValueError, match="Test: .*(unable to mmap|not all finite)"):
        load_inversion(file, loaded.model, "Test")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", bytes(range(64)), b"\xff" * 8 + b"{}"])
def test_files_of_another_kind_are_refused(loaded, tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="x.safetensors is not an inversion that this version can read"):
        load_inversion(tmp_path / "x.safetensors", loaded.model, "Test")


def test_a_checkpoint_is_no_inversion(loaded, tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no description of an inversion"):
        load_inversion(tmp_path / "x.safetensors", loaded.model, "Test")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_nothing_else_happens(loaded, file, data):
    content = bytearray(file.read_bytes())
    header = int.from_bytes(content[:8], "little") + 8
    kind = data.draw(st.sampled_from(["cut", "flip", "splice"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "flip":
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    else:
        at = data.draw(st.integers(8, header))
        content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    damaged = file.with_name("damaged.safetensors")
    damaged.write_bytes(content)
    try:
        load_inversion(damaged, loaded.model, "Test")
    except ValueError as error:
        assert str(error).startswith("Test: ")


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_description_with_odd_values_is_refused_or_is_saved_again_as_it_was_read(loaded, file, data):
    """One to three values, at any depth, are replaced by others of any kind, or taken out."""
    whole, odd = description_of(file), file.with_name("odd.safetensors")
    for _ in range(data.draw(st.integers(1, 3))):
        place = whole
        while isinstance(inner := place.get(key := data.draw(st.sampled_from(sorted(place)))), dict) and inner:
            if data.draw(st.booleans()):
                break
            place = inner
        if data.draw(st.booleans()):
            place[key] = data.draw(st.sampled_from([0, 1, 2, 1.5, "next", "current", "eager", 2**64, -1]) | WRONG)
        elif len(place) > 1:
            del place[key]
    shutil.copyfile(file, odd)
    rewritten(odd, whole)
    try:
        once = load_inversion(odd, loaded.model, "Test")
    except ValueError as error:
        assert str(error).startswith("Test: ")
    else:
        save_inversion(once, odd)
        again = load_inversion(odd, loaded.model, "Test")
        assert installed_method(again.model) == installed_method(once.model)
        for same in ("timesteps", "sigmas", "convention", "identity"):
            assert getattr(again, same) == getattr(once, same)
