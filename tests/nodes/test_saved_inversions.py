"""Save Inversion and Load Inversion in the host's folders."""

from __future__ import annotations

import folder_paths
import pytest
import torch
from comfyui_stem.nodes.folders import free_path, inversion_path, saved_inversions
from comfyui_stem.nodes.load_inversion import LoadInversion
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.save_inversion import SaveInversion
from comfyui_stem.tests.nodes.odd_names import odd_names
from hypothesis import HealthCheck, given, settings


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    (tmp_path / "output").mkdir()
    (tmp_path / "input").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt("a hill"), video, 2, "next")


def test_a_saved_inversion_is_listed_and_loaded(loaded, inversion, folders):
    same, name = SaveInversion.execute(inversion, "clip/dog").args
    assert same is inversion
    assert saved_inversions() == [name] == ["clip/dog_00001_.safetensors [output]"]
    options = next(i for i in LoadInversion.define_schema().inputs if i.id == "file").options
    assert options == [name]
    assert LoadInversion.validate_inputs(name) is True
    again, frames = LoadInversion.execute(name, loaded.model).args
    assert torch.equal(again.trajectory, inversion.trajectory) and frames == 5


def test_nothing_is_overwritten(inversion, folders):
    names = [SaveInversion.execute(inversion, "dog").args[1] for _ in range(3)]
    assert names == [f"dog_{n:05}_.safetensors [output]" for n in (1, 2, 3)]


def test_files_in_the_input_folder_are_listed_too(loaded, inversion, folders):
    SaveInversion.execute(inversion, "dog")
    (folders / "output" / "inversions").rename(folders / "input" / "inversions")
    assert saved_inversions() == ["dog_00001_.safetensors"]
    assert LoadInversion.execute("dog_00001_.safetensors", loaded.model).args[1] == 5


@pytest.mark.parametrize("prefix", ["../dog", "a/../../dog"])
def test_a_prefix_that_leads_out_of_the_folder_is_refused(inversion, folders, prefix):
    with pytest.raises(ValueError, match="Save Inversion: "):
        SaveInversion.execute(inversion, prefix)
    assert not list(folders.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/passwd", "a/../../x.safetensors [output]", "x.pkl", "\0.safetensors", "", " [output]"],
)
def test_names_that_lead_elsewhere_are_refused(folders, name):
    (folders / "x.safetensors").write_bytes(b"secret")
    with pytest.raises(ValueError, match="nothing else is read"):
        inversion_path(name, "Test")
    assert "nothing else is read" in LoadInversion.validate_inputs(name)


def test_a_link_that_leads_elsewhere_is_refused(folders):
    (folders / "x.safetensors").write_bytes(b"secret")
    (folders / "input" / "inversions").mkdir()
    (folders / "input" / "inversions" / "x.safetensors").symlink_to(folders / "x.safetensors")
    with pytest.raises(ValueError, match="nothing else is read"):
        inversion_path("x.safetensors", "Test")


NAMES = odd_names("../../outside", "sub", "folder", "x.safetensors", "x.safetensors.", "link.safetensors", "inversions")


@pytest.fixture
def traps(folders):
    """A file and a folder outside, links to both in the folders of inversions, and files that may be read."""
    (folders / "outside" / "sub").mkdir(parents=True)
    (folders / "outside" / "x.safetensors").write_bytes(b"secret")
    for root in ("input", "output"):
        inversions = folders / root / "inversions"
        (inversions / "sub").mkdir(parents=True)
        for file in ("x.safetensors", "sub/x.safetensors", "ü.safetensors"):
            (inversions / file).write_bytes(b"ours")
        (inversions / "link.safetensors").symlink_to(folders / "outside" / "x.safetensors")
        (inversions / "folder").symlink_to(folders / "outside", target_is_directory=True)
    return folders


@given(name=NAMES)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_name_only_files_of_the_folders_are_read(traps, name):
    try:
        found = inversion_path(name, "Test")
    except ValueError as error:
        assert str(error).startswith("Test: ")
    else:
        assert found.read_bytes() == b"ours"


@given(prefix=NAMES)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_prefix_nothing_is_made_outside_the_folder(traps, prefix):
    try:
        path, _, _ = free_path(prefix, "Test")
    except ValueError as error:
        assert str(error).startswith("Test: ")
    else:
        assert (traps / "output" / "inversions").resolve() in path.parents and path.parent.is_dir()
    assert sorted(file.name for file in (traps / "outside").rglob("*")) == ["sub", "x.safetensors"]
    assert sorted(folder.name for folder in traps.iterdir()) == ["input", "output", "outside"]


def test_a_link_in_a_prefix_makes_no_folder_elsewhere(inversion, traps):
    with pytest.raises(ValueError, match="Save Inversion: 'folder/new/x' leads out of the folder"):
        SaveInversion.execute(inversion, "folder/new/x")
    assert not (traps / "outside" / "new").exists()


def test_a_name_that_the_disk_cannot_hold_is_told(inversion, folders):
    with pytest.raises(ValueError, match="Save Inversion: a+.* could not be written .*choose another name"):
        SaveInversion.execute(inversion, "a" * 300)
    assert not list((folders / "output" / "inversions").iterdir())


@pytest.mark.parametrize("name", [7, None, ["x"], {"x": 1}])
def test_what_is_no_name_is_refused(folders, name):
    with pytest.raises(ValueError, match="Test: the file is given as .*, which is not a name"):
        inversion_path(name, "Test")


def test_a_file_that_has_gone_is_told(folders):
    (folders / "input" / "inversions").mkdir()
    assert "the file 'x.safetensors' no longer exists" in LoadInversion.validate_inputs("x.safetensors")


def test_the_host_runs_the_loader_again_when_the_file_has_changed(inversion, folders):
    _, name = SaveInversion.execute(inversion, "dog").args
    before = LoadInversion.fingerprint_inputs(name)
    assert LoadInversion.fingerprint_inputs(name) == before
    (folders / "output" / "inversions" / "dog_00001_.safetensors").write_bytes(b"other")
    assert LoadInversion.fingerprint_inputs(name) != before
    assert LoadInversion.fingerprint_inputs("gone.safetensors") == "gone.safetensors"


def test_unfinished_files_are_not_listed(folders):
    (folders / "input" / "inversions").mkdir()
    (folders / "input" / "inversions" / ".x.safetensors").touch()
    assert saved_inversions() == []
