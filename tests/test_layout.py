"""The layout holds: imports only point downwards, and each folder holds the rooms that it is meant to hold.

Imports are read from the source, those inside functions too. Modules of the pack are named by their paths, others as
they are imported (`comfy.utils`). docs/how_it_works.md describes the rooms.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "comfyui_stem"  # the checkout's name as a package: tests/conftest.py, tools/launch.py


def floors(folder: str, *rooms: str) -> dict[str, int]:
    """The floor of each room of `folder`, counted from the ground up; each of `rooms` names all those on one floor."""
    return {f"{folder}{room}": floor for floor, names in enumerate(rooms) for room in names.split()}


NODES = """bases_preview.py compare_videos.py edit_video.py fatezero_edit.py feature_pca.py frame_context.py
    inversion_sampler.py load_inversion.py reconstruct.py save_inversion.py stem_bases.py tokenflow_edit.py
    video_flow.py video_load.py video_metrics.py word_attention.py"""
# A room may import itself and what lies on floors below it. A module belongs to the longest path that it lies under.
METHODS = floors(
    "nodes/methods/", "seams", "batching", "attention", "stem", "inversion", "editing", "tokenflow fatezero"
)
NODES_FOLDER = floors("nodes/", "methods metrics video", "fields", "folders.py", NODES)
PRODUCT = {"stem_kernels": -1, **NODES_FOLDER, "__init__.py": 9}
BATCH = floors(
    "batch/",
    "comfyui",
    "jobs.py",
    "results.py workflow.py cluster.py todo.py counters.py",
    "host_files.py",
    "worker.py",
    "pool.py",
    "progress.py",
    "run.py",
    "options.py film",
    "commands.py",
    "__main__.py",
)
TOOLS = floors("tools/", "launch.py locations.py", "host", "small_model", "demo", "shipped", "measured", "robustness")
SIDES = {"": 0, "tools": 1, "tests": 2}  # what is neither a test nor a tool is the product
WITHOUT_COMFYUI = ("stem_kernels", "nodes/metrics", "nodes/video")
# beside comfy, comfy_api and the like; nodes is ComfyUI's here, the pack's own modules are paths
COMFYUI = {"execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "server"}


class Import(NamedTuple):
    """One import: the file that imports, its line, and what it imports."""

    file: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} -> {self.target}"

    @property
    def of_comfyui(self) -> bool:
        return self.target.startswith("comfy") or self.target.split(".")[0] in COMFYUI


def imports_of(root: Path, file: Path) -> Iterator[Import]:
    """Every import of `file`, a module of the package that lies in `root`."""
    path = file.relative_to(root)
    package = ".".join((PACKAGE, *path.parent.parts))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path.as_posix(), node.lineno, named(root, alias.name))
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield Import(path.as_posix(), node.lineno, named(root, f"{module}.{alias.name}", module))


def named(root: Path, *candidates: str) -> str:
    """The path of the first dotted name that is a module or folder of the package; else the last name, as it is."""
    for package, *parts in (dotted.split(".") for dotted in candidates):
        stem = root.joinpath(*parts)
        for path in (stem / "__init__.py", stem.with_suffix(".py"), stem) if package == PACKAGE else ():
            if path.exists():
                return path.relative_to(root).as_posix()
    return candidates[-1]


def all_imports(root: Path) -> list[Import]:
    """Every import of the package that lies in `root`."""
    files = [root / "__init__.py"]
    for folder in ("batch", "nodes", "stem_kernels", "tools", "tests"):
        files += sorted((root / folder).rglob("*.py"))
    return [found for file in files for found in imports_of(root, file)]


def pointing_up(imports: list[Import], floor: dict[str, int]) -> list[str]:
    """The imports from one room into another that is not on a lower floor."""

    def room_of(path: str) -> str | None:
        return max((room for room in floor if room in ("", path) or path.startswith(f"{room}/")), key=len, default=None)

    rooms = [(room_of(found.file), room_of(found.target), found) for found in imports]
    between = [way for way in rooms if None not in way and way[0] != way[1]]
    return [str(found) for here, there, found in between if floor[there] >= floor[here]]


def circle(imports: list[Import]) -> list[str]:
    """The modules of one circle of imports, or none."""
    graph = defaultdict(set)
    for found in imports:
        graph[found.file].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return all_imports(ROOT)


@pytest.mark.parametrize("floor", [PRODUCT, METHODS, BATCH, TOOLS], ids=["product", "methods", "batch", "tools"])
def test_rooms_import_downwards_only(imports, floor):
    wrong = pointing_up(imports, floor)
    assert not wrong, "\n".join(wrong)


def test_the_product_imports_neither_tools_nor_tests_and_tools_import_no_tests(imports):
    wrong = pointing_up(imports, SIDES)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", WITHOUT_COMFYUI)
def test_a_room_that_does_not_know_comfyui_imports_none_of_it(imports, room):
    wrong = [str(found) for found in imports if found.file.startswith(f"{room}/") and found.of_comfyui]
    assert not wrong, "\n".join(wrong)


def test_many_clips_are_run_from_outside_comfyui_and_share_with_its_nodes_how_films_are_read_and_measured(imports):
    out = [one for one in imports if one.file.startswith("batch/") and not one.target.startswith("batch/")]
    assert not [str(one) for one in out if one.of_comfyui]
    ours = [one for one in out if one.target.endswith(".py")]
    of_film = [one for one in ours if one.file.startswith("batch/film/")]
    assert of_film == ours and all(one.target.startswith(("nodes/video/", "nodes/metrics/")) for one in ours)
    into = [one for one in imports if one.target.startswith("batch/")]
    assert not [str(one) for one in into if one.file.split("/")[0] not in ("batch", "tools", "tests")]


def test_no_modules_import_each_other_in_a_circle(imports):
    assert not circle(imports)


@pytest.mark.parametrize("floor", [NODES_FOLDER, METHODS, BATCH, TOOLS], ids=["nodes", "methods", "batch", "tools"])
def test_a_folder_holds_exactly_its_rooms(floor):
    folder = (ROOT / next(iter(floor))).parent
    # of each entry that has code: an emptied folder may remain with a __pycache__ in it
    assert {file.relative_to(folder).parts[0] for file in folder.rglob("*.py")} - {"__init__.py"} == {
        Path(room).name for room in floor
    }


@pytest.mark.parametrize("side", ["batch", "nodes", "stem_kernels", "tools"])
def test_a_test_lies_where_its_subject_does(side):
    folders = {test.parent.relative_to(ROOT / "tests") for test in (ROOT / "tests" / side).rglob("test_*.py")}
    assert folders
    assert not [str(folder) for folder in folders if not any((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize(
    ("file", "text", "target", "floor"),
    [
        ("nodes/video_load.py", "from . import stem_bases", "nodes/stem_bases.py", PRODUCT),
        ("nodes/fields/shared.py", "def late():\n from ..stem_bases import X", "nodes/stem_bases.py", PRODUCT),
        ("nodes/methods/stem/run.py", f"import {PACKAGE}.nodes.methods.editing", "nodes/methods/editing", METHODS),
        ("nodes/metrics/plot.py", "from ...tools import locations", "tools/locations.py", SIDES),
    ],
)
def test_a_forbidden_import_is_found_in_every_form(tmp_path, file, text, target, floor):
    for name, lines in {"__init__.py": "", target: "", file: f"import comfy.utils\n{text}"}.items():
        path = tmp_path / name if name.endswith(".py") else tmp_path / name / "guider.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines)
    found = all_imports(tmp_path)
    assert pointing_up(found, floor) == [f"{file}:{text.count(chr(10)) + 2} -> {target}"]
    assert [one.target for one in found if one.of_comfyui] == ["comfy.utils"]
    assert not circle(found) and set(circle([*found, Import(target, 1, file)])) == {file, target}
