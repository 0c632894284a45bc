"""What travels to a machine without a package index: little enough, and what is needed there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.measured.gpu import bundle


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A bundle with one made-up package; what is unpacked of it too."""
    folder = tmp_path_factory.mktemp("bundle")
    wheel = folder / "made_up-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("made_up/__init__.py", "HERE = True\n")
    bundle.pack([wheel], locations.from_environment().host, folder / "gpu")
    with tarfile.open(folder / "gpu" / bundle.PACKED) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return folder


def test_it_leaves_room_for_the_packages(packed):
    assert bundle.size_of(packed / "gpu") < 3_000_000


def test_it_has_comfyui_with_one_tokenizer_and_no_compiled_code(packed):
    comfyui = packed / "unpacked" / "comfyui"
    assert (comfyui / "comfy" / "sd1_tokenizer" / "vocab.json").is_file()
    assert (comfyui / "comfy" / "text_encoders" / "t5.py").is_file()
    assert not [file for file in (comfyui / "comfy" / "text_encoders").iterdir() if file.is_dir()]
    assert not list(comfyui.rglob("*.pyc"))
    assert {file.name for file in (packed / "gpu").iterdir()} == {bundle.PACKED, "run.py", "run.sh", "stand_ins"}


def test_comfyui_and_the_pack_import_from_it_with_the_stand_in(packed):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import av, made_up, comfy.options, comfy.cli_args\n"
        "comfy.cli_args.args.cpu = True\n"
        "import comfy.samplers, comfy.sd, comfy_api.latest, latent_preview\n"
        "from av.container import InputContainer\n"
        "print(av.__file__, comfy.__path__, made_up.__file__)"
    )
    paths = [packed / "unpacked" / "packages", packed / "unpacked" / "comfyui", packed / "gpu" / "stand_ins"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(packed)) == 3, done.stdout


def test_too_large_a_bundle_is_refused_and_says_why(monkeypatch, tmp_path, capsys):
    (tmp_path / "main.py").write_bytes(os.urandom(20_000))
    monkeypatch.setenv("COMFYUI_HOST", str(tmp_path))
    monkeypatch.setattr(bundle, "download", lambda *arguments: [])
    monkeypatch.setattr(bundle, "MOST_BYTES", 15_000)
    assert bundle.main(["--output", str(tmp_path / "gpu")]) == 1
    assert "more than the 0.015 MB that may travel" in capsys.readouterr().out
