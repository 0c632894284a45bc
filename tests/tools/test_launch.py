"""tools/launch.py, as make calls it."""

from __future__ import annotations

import subprocess
import sys

from comfyui_stem.tools.locations import TOOLS


def launch(*arguments, code=None):
    command = [sys.executable, *(["-c", code] if code else [str(TOOLS / "launch.py")]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=TOOLS, check=False)


def test_a_tool_runs_by_name_from_any_folder():
    run = launch("host.environment", "--help")
    assert run.returncode == 0, run.stderr
    assert "make setup" in run.stdout


def test_what_a_tool_returns_is_the_exit_status():
    run = launch("measured.model_card", "--checkpoint=none.safetensors")
    assert (run.returncode, run.stdout[:12]) == (1, "card stopped"), run.stderr


def test_neither_the_checkout_nor_the_tools_are_on_the_module_path():
    """There they would hide modules of the host: it has a `nodes` of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import launch, contextlib;"
        "sys.argv = ['launch.py', 'host.environment', '--help']\n"
        "with contextlib.suppress(SystemExit): launch.main()\n"
        f"print('on the path:', {{{str(TOOLS)!r}, {str(TOOLS.parent)!r}}} & set(sys.path))"
    )
    run = launch(code=code)
    assert "on the path: set()" in run.stdout, run.stderr


def test_an_old_python_is_told_what_is_needed():
    code = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import launch; sys.version_info = (3, 8, 1);"
        "sys.argv = ['launch.py', 'host.environment']; launch.main()"
    )
    run = launch(code=code)
    assert run.returncode == 1
    assert "Python 3.8.1 runs this" in run.stderr and "3.10 or newer" in run.stderr


def test_the_set_up_needs_nothing_but_the_standard_library():
    code = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import launch; launch.register_pack();"
        "import comfyui_stem.tools.host.environment;"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'psutil', 'aiohttp', 'tqdm', 'av'})"
    )
    run = launch(code=code)
    assert run.stdout.strip() == "set()", run.stderr
