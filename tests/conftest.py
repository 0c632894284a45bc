"""Makes the pack importable as `comfyui_stem` and puts a real ComfyUI host on the path, without starting it."""

from __future__ import annotations

import gc
import os
import pathlib
import sys
import types
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOST = pathlib.Path(os.environ.get("COMFYUI_HOST") or ROOT / ".setup" / "host").resolve()
if not (HOST / "main.py").is_file():
    raise RuntimeError(
        f"No ComfyUI host at {HOST}: run `make setup`, or set COMFYUI_HOST to a folder that holds main.py."
    )

# The host comes first: `import nodes` must mean the host's module even when the checkout is the working directory.
sys.path.insert(0, str(HOST))

# The checkout as a package whatever its folder is called, without running its __init__.py.
package = types.ModuleType("comfyui_stem")
package.__path__ = [str(ROOT)]
sys.modules["comfyui_stem"] = package

import pytest  # noqa: E402
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402
from comfyui_stem.batch.comfyui.client import HostClient  # noqa: E402
from comfyui_stem.batch.comfyui.process import HostProcess, device_arguments  # noqa: E402
from comfyui_stem.tools import locations  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

args.cpu = not torch.cuda.is_available()
# What ComfyUI takes on a GPU; the hosts of tests/host take what it takes on this machine.
args.use_pytorch_cross_attention = True
# What was imported stays, so no collection of garbage need look at it again.
gc.freeze()

# Nothing fails by chance: the same examples every time, and no limit that a busy machine could miss.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that processes that share the tests end at about the same time."""
    items.sort(key=lambda item: (item.get_closest_marker("host") is None, "tools" not in item.path.parts))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """No test changes the number of threads: two in one process spin while the other process works."""
    before = torch.get_num_threads()
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before


@pytest.fixture(scope="session")
def host_process(tmp_path_factory) -> HostProcess:
    """The running process, with the attention that the host itself chooses on this machine.

    Beside the pack it has the nodes that cause faults, and a pack that gives a node an old name. Its checkpoints are
    the tiny one of the set-up, as tiny.safetensors, and the trained one of the demo.
    """
    where = locations.from_environment()
    assert where.checkpoint.is_file(), f"There is no checkpoint at {where.checkpoint}: run `make setup`."
    process = HostProcess(
        tmp_path_factory.mktemp("host"),
        where.host,
        where.host_python,
        locations.TEST_PACKS | {"renaming_pack": ROOT / "tests" / "host" / "renaming_pack"},
        device_arguments(),
        {"checkpoints": [where.checkpoint, locations.TRAINED]},
    )
    with process:
        yield process


@pytest.fixture(scope="session")
def host(host_process) -> HostClient:
    """A client of the running host."""
    return host_process.client
