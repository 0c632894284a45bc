"""What the registry, ComfyUI-Manager and users rely on."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from comfyui_stem.tools.host.environment.packages import lines, name
from comfyui_stem.tools.locations import ROOT
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

# Modules that the host provides, and torch, which is the host's own.
OF_THE_HOST = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "torch",
    "torchvision",
}
OPTIONAL = {"triton"}
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_requirements_txt_lists_the_projects_dependencies(project):
    assert lines(ROOT / "requirements.txt") == project["project"]["dependencies"]


def test_requirements_txt_is_of_the_kind_that_the_manager_installs():
    for line in lines(ROOT / "requirements.txt"):
        assert not line.startswith("-")
        assert name(line) not in {"torch", "torchvision", "torchaudio", "triton"}


def shipped_syntax() -> list[ast.AST]:
    """Every piece of syntax of the shipped code."""
    files = [ROOT / "__init__.py", *ROOT.glob("nodes/**/*.py"), *ROOT.glob("stem_kernels/**/*.py")]
    return [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]


def imported_packages() -> set[str]:
    """The top-level names that the shipped code imports from outside the pack."""
    found = set()
    for node in shipped_syntax():
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_what_the_shipped_code_imports_is_what_is_required():
    foreign = imported_packages() - set(sys.stdlib_module_names) - OF_THE_HOST - OPTIONAL
    used = {DISTRIBUTIONS.get(package, package) for package in foreign}
    assert used == {name(line) for line in lines(ROOT / "requirements.txt")}


def test_the_shipped_code_reaches_no_network_runs_no_program_and_unpickles_nothing():
    # what comes through the host, such as its loading of weights, is the host's
    connects = {"asyncio", "aiohttp", "ftplib", "http", "requests", "smtplib", "socket", "ssl", "urllib", "xmlrpc"}
    runs = {"code", "ctypes", "multiprocessing", "pty", "runpy", "subprocess", "venv", "webbrowser"}
    unpickles = {"cloudpickle", "copyreg", "dill", "joblib", "marshal", "pickle", "shelve"}
    assert not imported_packages() & (connects | runs | unpickles)
    calls = {ast.unparse(node.func) for node in shipped_syntax() if isinstance(node, ast.Call)}
    assert not calls & {"eval", "exec", "compile", "__import__", "torch.load", "numpy.load", "np.load", "os.system"}
    assert not any(call.startswith("torch.hub") for call in calls)


def test_the_registry_can_read_the_project(project):
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", project["project"]["name"])
    assert "comfyui" not in project["project"]["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert project["project"]["urls"]["Repository"].startswith("https://")
    comfy = project["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert comfy["requires-comfyui"] == ">=0.3.75"


def test_the_licence_file_is_there(project):
    assert (ROOT / project["project"]["license"]["file"]).read_text().startswith("MIT License")


def test_pytest_is_configured_in_tests_alone(project):
    assert "pytest" not in project["tool"]
    assert not any((ROOT / file).exists() for file in ("conftest.py", "pytest.ini", "tox.ini", "setup.cfg"))


@pytest.mark.parametrize("left_out", ["assets/*.safetensors", "assets/*.png", "assets/sprites/", "tests/", "tools/"])
def test_the_registry_archive_leaves_out_what_users_do_not_need(left_out):
    assert f"/{left_out}" in (ROOT / ".comfyignore").read_text().splitlines()


def test_the_excerpt_is_small_and_attributed():
    assert (ROOT / "assets" / "big_buck_bunny.mp4").stat().st_size < 500_000
    text = (ROOT / "assets" / "ATTRIBUTION.md").read_text()
    assert "(c) copyright 2008, Blender Foundation / www.bigbuckbunny.org" in text
    assert "Creative Commons Attribution 3.0" in text


def in_archive() -> list[pathlib.Path]:
    """The files that the registry's archive holds: those of git that .comfyignore does not leave out."""

    def listed(*options: str) -> set[str]:
        done = subprocess.run(["git", "ls-files", *options], cwd=ROOT, capture_output=True, text=True, check=True)
        return set(done.stdout.splitlines())

    return [ROOT / file for file in sorted(listed() - listed("--cached", "-i", "--exclude-from=.comfyignore"))]


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="which files are in the archive is known to git")


@needs_git
def test_the_archive_is_small_and_has_what_users_need():
    files = in_archive()
    assert sum(file.stat().st_size for file in files) < 4_000_000
    names = {file.relative_to(ROOT).as_posix() for file in files}
    needed = {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "CHANGELOG.md"}
    assert needed <= names
    for folder in ("nodes", "stem_kernels", "workflows", "locales", "web"):
        assert any(name.startswith(f"{folder}/") for name in names)
    assert not any(name.startswith(("tools/", "tests/", ".", "output/")) for name in names)
    # of the assets, the example clip of Video Load
    assets = {name for name in names if name.startswith("assets/")}
    assert assets == {"assets/big_buck_bunny.mp4", "assets/ATTRIBUTION.md"}


@needs_git
def test_nothing_of_the_archive_needs_what_is_left_out():
    for file in in_archive():
        if file.suffix == ".py":
            text = file.read_text(encoding="utf-8")
            assert "comfyui_stem" not in text and "from ..tools" not in text and "from .tools" not in text


def test_the_icon_and_the_banner_are_drawn_by_the_script(project):
    from comfyui_stem.tools.shipped import branding

    for kind, drawn in (("icon", branding.icon()), ("banner", branding.banner())):
        shipped = Image.open(ROOT / "assets" / f"{kind}.png").convert("RGB")
        assert shipped.size == drawn.size
        # another version of the font library draws letters a little differently
        difference = np.abs(np.asarray(shipped, float) - np.asarray(drawn, float)).mean()
        assert difference < 4
        assert project["tool"]["comfy"][kind.capitalize()].endswith(f"/assets/{kind}.png")


def test_the_changelog_has_the_version(project):
    assert f"\n## {project['project']['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tests", "publish"])
def test_the_workflows_of_github_can_be_read_and_use_our_commands(name):
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = " ".join(step.get("run", "") for step in steps)
    used = set(re.findall(r"\bmake (\w+)", commands)) - {"for"}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert used - {"no"} <= targets | {"install"}
    if name == "tests":
        systems = workflow["jobs"]["tests"]["strategy"]["matrix"]["os"]
        assert {system.split("-")[0] for system in systems} == {"ubuntu", "windows", "macos"}
        assert "test" in used
    else:
        assert workflow[True]["push"]["tags"] == ["v*"]  # YAML reads "on" as true
