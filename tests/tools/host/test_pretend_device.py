"""The pretended device: numbers as on a CPU, refusals as on a GPU, and what is counted."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.tools.host.pretend_device import DEVICE, PretendDevice, PretendTensor
from torch.nn import functional


@pytest.fixture
def device():
    with torch.inference_mode(), PretendDevice() as device:
        yield device


def on_device(*shape: int) -> PretendTensor:
    return PretendTensor(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))


def test_what_is_computed_is_what_a_cpu_computes(device):
    a, b = on_device(4, 6), on_device(6, 5)
    found = torch.softmax((a @ b)[1:].transpose(0, 1), dim=-1)
    assert found.device == DEVICE
    assert torch.equal(found.cpu(), torch.softmax((a.on_cpu @ b.on_cpu)[1:].transpose(0, 1), dim=-1))


def test_what_is_written_into_a_view_is_in_the_tensor(device):
    a = torch.zeros(3, 4, device=DEVICE)
    a[1].add_(2).mul_(3)
    assert a.cpu().tolist() == [[0] * 4, [6] * 4, [0] * 4]


def test_operations_are_counted_and_views_and_empty_tensors_are_not(device):
    a = on_device(4, 6)
    (a.view(6, 4).transpose(0, 1) + torch.empty_like(a)).relu_()
    assert dict(device.operations) == {"add": 1, "relu_": 1}


def test_attention_of_numbers_that_do_not_lie_side_by_side_is_that_of_a_cpu(device):
    q = on_device(2, 3, 8, 8).transpose(-1, -2)
    expected = functional.scaled_dot_product_attention(q.on_cpu, q.on_cpu, q.on_cpu)
    torch.testing.assert_close(functional.scaled_dot_product_attention(q, q, q).cpu(), expected)


def test_attention_is_one_operation(device):
    q = on_device(2, 3, 5, 8)
    found = functional.scaled_dot_product_attention(q, q, q)
    assert device.operations.total() == 1
    expected = functional.scaled_dot_product_attention(q.on_cpu, q.on_cpu, q.on_cpu)
    torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize(
    ("wait", "name"),
    [
        (lambda a: a.sum().item(), "_local_scalar_dense"),
        (lambda a: bool((a > 0).all()), "_local_scalar_dense"),
        (lambda a: torch.equal(a, a + 1), "equal"),
        (lambda a: torch.nonzero(a > 0), "nonzero"),
        (lambda a: a[a > 0], "boolean indexing"),
        (lambda a: a.cpu(), "copy to the host"),
        (lambda a: torch.empty(4, 6).copy_(a), "copy to the host"),
    ],
)
def test_waits_are_counted(device, wait, name):
    wait(on_device(4, 6))
    assert dict(device.waits) == {name: 1}


def test_bytes_are_counted_both_ways(device):
    a = torch.ones(4, 6).to(DEVICE)
    a[torch.tensor([1, 2])].half().cpu()
    assert (device.to_device, device.to_host) == (4 * 6 * 4 + 2 * 8, 2 * 6 * 2)


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b: a + b,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: a @ b.T,
        lambda a, b: a.masked_fill(b > 0, 1),
        lambda a, b: a.index_select(0, torch.tensor([1])),
        lambda a, b: b[torch.zeros(2, dtype=torch.int64, device=DEVICE)],
        lambda a, b: torch.randn(3, device=DEVICE, generator=torch.Generator()),
    ],
)
def test_what_a_gpu_refuses_is_refused(device, mix):
    with pytest.raises(RuntimeError, match="CPU"):
        mix(on_device(4, 6), torch.ones(4, 6))


def test_single_numbers_of_the_host_may_join(device):
    assert (on_device(4, 6) * torch.tensor(2.0)).device == DEVICE


def test_the_most_bytes_at_once_are_those_of_tensors_made_here(device):
    before = on_device(100)
    a = before + 1
    b = a.view(10, 10)[:5] * 2
    del a
    del b
    _ = before * 3
    assert (device.peak, device.held) == (400 + 200, 400)
