"""What the device can do at most of what inversions ask of it: products, copies, and starting work."""

from __future__ import annotations

import torch

from .timing import Workload

SIDE = 8192
COPIED = 4 << 30
LAUNCHED = 2000
DTYPES = (torch.float16, torch.float32)


def workloads(device: str, scale: float = 1) -> list[Workload]:
    """A large product of matrices in each type, a copy, and many small operations; sides times `scale`."""
    side, size, made = int(SIDE * scale), int(COPIED * scale**2), []
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        left, right = torch.randn(2, side, side, device=device).to(dtype)
        noted = {"dtype": name, "flops": 2 * side**3}
        made.append(Workload(f"product, {name}", lambda a=left, b=right: a @ b, more=noted))
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target, small = torch.empty_like(source), torch.zeros(1, device=device)
    # read once and written once
    made.append(Workload("copy", lambda: target.copy_(source), more={"bytes": 2 * size}))

    def many_small() -> None:
        for _ in range(LAUNCHED):
            small.add_(1)

    return [*made, Workload(f"{LAUNCHED} small operations", many_small, more={"launches": LAUNCHED})]
