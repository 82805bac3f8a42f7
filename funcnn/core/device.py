"""Devices: where the numbers of a value are, and what the evaluator asks of a device to compute there.

A value is an array of its device (a NumPy array on the CPU) or a tracer that stands for one. A rule asks a value for its
shape, dtype and device, never for its numbers, so that it holds for arrays that Python cannot read. What it needs besides
its operands it makes where they are, by a primitive without inputs (``full``, ``iota``, ``eye``) that is told the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from funcnn.core.aval import Tracer
from funcnn.core.errors import DeviceError
from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.launching import ready
from funcnn.kernels.layouts import contiguous_steps

HOST = "cpu"


@dataclass(frozen=True)
class Device:
    """A place to compute, under the name that ``Primitive.on`` knows it by.

    array: the class of its values, which have ``shape``, ``dtype`` and ``strides`` (in bytes).
    empty: ``empty(shape, dtype)``, new memory. copy: ``copy(to, source)`` within the device.
    copy_in: a value with the numbers of a NumPy array; copy_out: the other way, once they are there.
    view: ``view(value, shape, strides, offset)``, the same memory from ``offset`` bytes on. None: the values are NumPy's,
        which a rule of views takes by itself.
    runner: ``runner(plan, operands, outs)`` gives ``run(ins, outs)``, which makes the launches of a plan.
    synchronize: wait until all that was launched is done; what a kernel refused is raised then at the latest.
    extent: ``extent(value)``, where its memory begins and ends in the device's own numbering of bytes; None: a NumPy array's.
    """

    name: str
    array: type
    empty: Callable[[tuple[int, ...], np.dtype], Any]
    copy: Callable[[Any, Any], None]
    copy_in: Callable[[np.ndarray], Any]
    copy_out: Callable[[Any], np.ndarray]
    view: Callable[[Any, tuple[int, ...], tuple[int, ...], int], Any] | None
    runner: Callable[[Any, tuple, tuple], Callable[[list, list], None]]
    synchronize: Callable[[], None]
    extent: Callable[[Any], tuple[int, int]] | None = None


def _nothing() -> None:
    """The CPU computes before a call returns."""


CPU = Device(HOST, np.ndarray, memory.empty, np.copyto, np.copy, np.asarray, None, ready, _nothing)
devices: dict[str, Device] = {HOST: CPU}


def device_of(value: Any) -> str:
    """Returns the name of the device where a value is, or where it will be if it is traced."""
    if type(value) is np.ndarray:
        return HOST
    if isinstance(value, Tracer):
        return value.device
    for device in devices.values():
        if isinstance(value, device.array):
            return device.name
    raise DeviceError(f"a {type(value).__name__} is no value of a device; there are {_listed()}")


def common_device(name: str, places: Sequence[str], params: dict[str, Any]) -> str:
    """Returns where an operation runs: where its operands are, or where it is told to where there is none.

    Raises ``DeviceError`` where they are on several.
    """
    if not places:
        return params.get("device", HOST)
    if places.count(places[0]) < len(places):
        found = " and ".join(map(repr, dict.fromkeys(places)))
        raise DeviceError(f"{name}: expected operands on one device, got {found} ({', '.join(places)} in turn); "
                          "move one with .to(device)")  # fmt: skip
    return places[0]


def known_device(name: Any) -> str:
    """Returns the name of a device, as PyTorch spells it ("cpu:0" too). Raises ``DeviceError`` for one that is not there."""
    if name is None or name == HOST:
        return HOST
    spelled = str(getattr(name, "type", name))
    if spelled not in devices and (spelled := spelled.split(":")[0]) not in devices:
        raise DeviceError(f"device {str(name)!r} is not available; tensors live on {_listed()}")
    return spelled


def refuse_others(name: Any) -> None:
    """Raises ``DeviceError`` for another device than the host, where nothing else is known."""
    if known_device(name) != HOST:
        raise DeviceError(
            f"device {str(name)!r}: random numbers and modules are made on {HOST!r}; move tensors with .to()"
        )


def _listed() -> str:
    return " and ".join(map(repr, devices))


# ---- memory of values that are not traced -----------------------------------------------------------------------------
def copied(value: Any) -> Any:
    """Returns the same elements in memory of their own, on the same device."""
    if type(value) is np.ndarray:
        return value.copy()
    return _in_order(devices[device_of(value)], value)


def copy_into(to: Any, source: Any) -> None:
    """Overwrites the memory of a value."""
    if type(to) is np.ndarray and type(source) is np.ndarray:
        np.copyto(to, source)
        return
    devices[common_device("in place", [device_of(to), device_of(source)], {})].copy(to, source)


def writeable(value: Any) -> bool:
    """Whether the memory of a value may be written: elements that stand for several may not."""
    if type(value) is np.ndarray:
        return value.flags.writeable
    return all(stride or size < 2 for size, stride in zip(value.shape, value.strides, strict=True))


def sole(value: Any) -> bool:
    """Whether memory may be taken over: it may be written, and is known to be nobody else's."""
    return type(value) is np.ndarray and memory.sole(value) and value.flags.writeable


def stand_in(shape: Sequence[int], strides: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Returns an array of any elements with the strides of a value: only for looking at."""
    reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)] if 0 not in shape else []
    before = -sum(step for step in reach if step < 0)
    after = sum(step for step in reach if step > 0) + dtype.itemsize
    return np.ndarray(tuple(shape), dtype, np.empty(before + after, np.uint8), before, tuple(strides))


def viewed(
    device: Device, view: Callable, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype
) -> Callable[[Any], Any]:
    """Returns what applies a rule of views to values of this layout on a device: the rule is asked once, about a stand-in."""
    if device.view is None:
        return view
    of = device.view
    whole = stand_in(shape, strides, dtype)
    part = view(whole)
    if part.size and not np.may_share_memory(part, whole):
        strides = tuple([dtype.itemsize * step for step in contiguous_steps(part.shape)])
        return lambda value: of(_in_order(device, value), part.shape, strides, 0)
    offset = _address(part) - _address(whole) if part.size else 0
    return lambda value: of(value, part.shape, part.strides, offset)


def _in_order(device: Device, value: Any) -> Any:
    fresh = device.empty(value.shape, value.dtype)
    device.copy(fresh, value)
    return fresh


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


# ---- as users see it --------------------------------------------------------------------------------------------------
class device(str):
    """Where a tensor's memory is, ``cpu`` unless others are there. Prints as ``device(type='cpu')``."""

    def __new__(cls, name: Any = HOST, index: int | None = None) -> device:
        return super().__new__(cls, known_device(name))

    @property
    def type(self) -> str:
        """Returns the kind of device."""
        return str(self)

    def __repr__(self) -> str:
        return f"device(type='{self.type}')"


named = lru_cache(device)  # one object for each name
