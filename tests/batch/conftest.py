"""Machines to run many clips on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from comfyui_stem.tools.robustness.batch_runs.cluster import Cluster, two_machines
from comfyui_stem.tools.robustness.batch_runs.machines import CannotSeparate


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for all tests of a file: starting Ray takes longer than most of them."""
    try:
        with two_machines() as made:
            yield made
    except CannotSeparate as error:
        pytest.skip(f"this machine does not allow network namespaces: {error}")
