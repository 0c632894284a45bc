"""The repairs of torchvision and torchaudio touch only what does not import."""

from __future__ import annotations

import pytest
from comfyui_stem.tools.host.environment import cpu_wheels


@pytest.fixture
def site_packages(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "extension.py").write_text("def _has_ops():\n    return False\n")
    (tmp_path / "torchaudio" / "lib").mkdir(parents=True)
    for name in ("libtorchaudio.so", "readme.txt"):
        (tmp_path / "torchaudio" / "lib" / name).touch()
    return tmp_path


def test_the_operators_are_declared_once(site_packages):
    for _ in range(2):
        cpu_wheels.declare_torchvision_operators(site_packages)
    text = (site_packages / "torchvision" / "extension.py").read_text()
    assert text.count("nms(Tensor dets") == 2  # nms and qnms
    assert text.startswith("def _has_ops")
    compile(text, "extension.py", "exec")


def test_only_torchaudios_libraries_are_removed(site_packages):
    cpu_wheels.remove_torchaudio_libraries(site_packages)
    assert [file.name for file in (site_packages / "torchaudio" / "lib").iterdir()] == ["readme.txt"]


def test_a_package_that_imports_is_left_alone(monkeypatch):
    repaired = []
    monkeypatch.setattr(cpu_wheels, "importable", lambda package: None)
    monkeypatch.setattr(cpu_wheels, "REPAIRS", {"torchvision": repaired.append})
    assert cpu_wheels.main([]) == 0
    assert repaired == []


def test_a_repair_that_does_not_help_fails_with_the_import_error(monkeypatch, capsys):
    repaired = []
    monkeypatch.setattr(cpu_wheels, "importable", lambda package: "ImportError: libcuda.so")
    monkeypatch.setattr(cpu_wheels, "REPAIRS", {"torchvision": repaired.append})
    assert cpu_wheels.main([]) == 1
    assert len(repaired) == 1
    assert "libcuda.so" in capsys.readouterr().out


def test_importable_names_the_error_of_a_package_that_is_not_there():
    assert cpu_wheels.importable("json") is None
    assert "ModuleNotFoundError" in cpu_wheels.importable("no_such_package_at_all")
