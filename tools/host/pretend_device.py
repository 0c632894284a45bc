"""A device that is not there: tensors that say they lie on another device, while the CPU holds and computes them.

ComfyUI and the pack then do what they do on a GPU, on any machine: factors on two devices fail, and every operation,
every wait for the device and every copy to it or from it is seen and counted. PyTorch names no other device than `meta`
without its driver, so it is called that; unlike other tensors on it, these have numbers.
"""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .loaded_model import Loaded

DEVICE = torch.device("meta")
ATEN = torch.ops.aten
# The host needs a value, or the size of the result is one: it waits for the device.
WAITS = frozenset(
    (ATEN._local_scalar_dense, ATEN.equal, ATEN.nonzero, ATEN.masked_select, ATEN._unique2, ATEN.unique_consecutive)
)
# They make a tensor without starting work on the device.
NO_WORK = frozenset(
    (ATEN.empty, ATEN.empty_like, ATEN.empty_strided, ATEN.new_empty, ATEN.new_empty_strided, ATEN._unsafe_view)
)
COPIES = frozenset((ATEN._to_copy, ATEN.copy_))
INDEXING = frozenset((ATEN.index, ATEN.index_put_, ATEN.index_put, ATEN._index_put_impl_))


class PretendTensor(Tensor):
    """A tensor on the pretend device; `on_cpu` is the one on the CPU that it stands for."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> PretendTensor:
        layout = {"strides": on_cpu.stride(), "storage_offset": on_cpu.storage_offset()}
        found = Tensor._make_wrapper_subclass(cls, on_cpu.shape, dtype=on_cpu.dtype, device=DEVICE, **layout)
        found.on_cpu = on_cpu
        return found

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if function is nn.functional.scaled_dot_product_attention:
                return _attention(*arguments, **(named or {}))
            return function(*arguments, **(named or {}))

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        with PretendDevice():
            return function(*arguments, **(named or {}))

    def __deepcopy__(self, memo: dict) -> PretendTensor:
        return PretendTensor(copy.deepcopy(self.on_cpu, memo))


class PretendDevice(TorchDispatchMode):
    """Context manager: the device exists, and what is done on it is counted.

    Attributes:
        operations: by name, those that start work on the device; attention is one.
        waits: by name, those that the host has to wait for; copies to the host are among them.
        to_host, to_device: bytes copied.
        held, peak: bytes of tensors on the device that were made inside, now and at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.to_host = self.to_device = self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        named = named or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd"):
            # in inference mode they arrive whole
            with self:
                return function.decompose(*arguments, **named)
        given = {tensor.on_cpu.untyped_storage().data_ptr() for tensor in _pretended((arguments, named))}
        result = _computed(function, arguments, named)
        made = [*_pretended(result)]
        if given or made:
            self._count(function, arguments, result, bool(given))
        for tensor in made:
            self._hold(tensor.on_cpu.untyped_storage(), given)
        return result

    def _count(self, function: Any, arguments: tuple, result: Any, on_device: bool) -> None:
        packet, name = function.overloadpacket, function.overloadpacket.__name__
        if packet in COPIES:
            target = result if packet is ATEN._to_copy else arguments[0]
            source = arguments[0] if packet is ATEN._to_copy else arguments[1]
            crossing = isinstance(source, PretendTensor), isinstance(target, PretendTensor)
            if crossing == (True, False):
                self.to_host += source.on_cpu.nbytes
                self.waits["copy to the host"] += 1
                return
            if crossing == (False, True):
                self.to_device += source.nbytes
        if packet in INDEXING:
            for index in filter(None.__ne__, arguments[1]):
                if index.dtype in (torch.bool, torch.uint8):
                    self.waits["boolean indexing"] += 1
                elif not isinstance(index, PretendTensor):
                    self.to_device += index.nbytes
        if packet in WAITS:
            self.waits[name] += 1
        if not function.is_view and packet not in NO_WORK:
            self.operations[name] += 1

    def _hold(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        # a view of what was there before is nothing new
        if address in given or address in self._known or address == 0:
            return
        self._known.add(address)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._freed, address, size)

    def _freed(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.held -= size


def moved(loaded: Loaded) -> Loaded:
    """A copy of a checkpoint whose MODEL lies on the pretended device."""
    base = copy.deepcopy(loaded.model.model)
    for part in base.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(PretendTensor(parameter.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = PretendTensor(buffer)
    base.device = DEVICE
    return replace(loaded, model=type(loaded.model)(base, load_device=DEVICE, offload_device=DEVICE))


@contextmanager
def pretended(free: float = 1e12) -> Iterator[PretendDevice]:
    """The device exists and counts, and ComfyUI finds `free` bytes on it."""
    import comfy.model_management

    def memory(device: Any = None, torch_free_too: bool = False) -> Any:
        return (free, free) if torch_free_too else free

    with _Constructors(), ExitStack() as stack:
        for name in ("get_free_memory", "get_total_memory"):
            stack.enter_context(mock.patch.object(comfy.model_management, name, memory))
        yield stack.enter_context(PretendDevice())


class _Constructors(TorchFunctionMode):
    """Numbers of Python become a tensor on the CPU first, as they do for a GPU."""

    def __torch_function__(self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        named = dict(named or {})
        if function in (torch.tensor, torch.as_tensor) and torch.device(named.get("device") or "cpu") == DEVICE:
            del named["device"]
            return function(*arguments, **named).to(DEVICE)
        return function(*arguments, **named)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **more: Any,
) -> Tensor:
    """One kernel, as on a GPU; for a device that it does not know PyTorch would take a dozen operations."""
    fused = ATEN._scaled_dot_product_flash_attention_for_cpu
    # as PyTorch does before it takes this kernel
    q, k, v = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (q, k, v))
    return fused(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _computed(function: Any, arguments: tuple, named: dict[str, Any]) -> Any:
    """An operation on the tensors that those given stand for; its results lie where they would on a GPU.

    Raises:
        RuntimeError: tensors on both devices meet where a GPU would refuse it.
    """
    packet, where = function.overloadpacket, named.get("device")
    tensors = [*_tensors((arguments, named))]
    pretended = any(isinstance(tensor, PretendTensor) for tensor in tensors)
    on_device = pretended if where is None else torch.device(where).type == DEVICE.type
    if pretended and packet not in COPIES:
        _check_devices(packet, arguments, tensors)
    if on_device and isinstance(named.get("generator"), torch.Generator):
        raise RuntimeError(f"{packet.__name__} was given a generator of the CPU for a tensor on another device")
    if where is not None:
        named = {**named, "device": torch.device("cpu")}
    result = function(*_mapped(_real, arguments), **_mapped(_real, named))
    if packet is ATEN.copy_:
        return arguments[0]
    in_place = {id(_real(tensor)): tensor for tensor in tensors} if function._schema.is_mutable else {}

    def placed(tensor: Tensor) -> Tensor:
        if id(tensor) in in_place:
            return in_place[id(tensor)]
        return PretendTensor(tensor) if on_device else tensor

    return _mapped(placed, result)


def _check_devices(packet: Any, arguments: tuple, tensors: list[Tensor]) -> None:
    """Raise where tensors of both devices meet, but for single numbers of the host and indices on it."""
    if packet in INDEXING and isinstance(arguments[0], PretendTensor):
        tensors = [arguments[0], *arguments[2:3]]
    strangers = [one for one in tensors if not isinstance(one, PretendTensor) and one.ndim]
    if strangers and any(isinstance(one, PretendTensor) for one in tensors):
        raise RuntimeError(f"{packet.__name__}: a tensor {list(strangers[0].shape)} lies on the CPU, others do not")


def _real(tensor: Tensor) -> Tensor:
    return tensor.on_cpu if isinstance(tensor, PretendTensor) else tensor


def _mapped(change: Callable[[Tensor], Tensor], values: Any) -> Any:
    """`change` of every tensor in lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, list | tuple):
        return type(values)([_mapped(change, value) for value in values])
    if isinstance(values, dict):
        return {name: _mapped(change, value) for name, value in values.items()}
    return values


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def _pretended(values: Any) -> Iterator[PretendTensor]:
    return (value for value in _tensors(values) if isinstance(value, PretendTensor))
