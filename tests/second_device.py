"""A second device for tests: its values have a shape, a dtype, strides and a handle, and nobody can read their numbers.

Its implementations only look whether they were given what they should be, so what runs on it shows what the rules do, and
that none of them touches memory.
"""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import pytest

from funcnn.core.device import Device, devices
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor, wrap
from funcnn.kernels.implementation import host
from tests import helpers as h

NAME = "fake"
touches: list[str] = []  # what was tried, also where the error was caught


class Touched(AssertionError):
    """Something asked for numbers that are on the device."""


def _refused(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        touches.append(name)
        raise Touched(f"{name} of a value of shape {self.shape} on the device")

    return method


class Remote:
    """A value of the device."""

    __slots__ = ("dtype", "handle", "offset", "shape", "strides")
    __array_ufunc__ = None

    def __init__(self, shape: tuple, dtype: Any, strides: tuple, offset: int = 0, handle: object = None):
        assert all(type(size) is int for size in (*shape, *strides))
        self.shape, self.dtype, self.strides = tuple(shape), np.dtype(dtype), tuple(strides)
        self.offset, self.handle = offset, object() if handle is None else handle

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    __array_interface__ = property(_refused("__array_interface__"))
    __array_struct__ = property(_refused("__array_struct__"))


for _name in (
    "__array__", "__dlpack__", "__buffer__", "__float__", "__int__", "__index__", "__bool__", "__complex__", "__len__",
    "__iter__", "__getitem__", "__setitem__", "item", "tolist", "tobytes", "copy", "astype", "min", "max", "any", "all", "sum",
):  # fmt: skip
    setattr(Remote, _name, _refused(_name))


def empty(shape: tuple, dtype: Any) -> Remote:
    """New memory, contiguous."""
    dtype = np.dtype(dtype)
    shape = tuple(map(int, shape))
    return Remote(shape, dtype, tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))))


def _copy(to: Remote, source: Remote) -> None:
    assert type(to) is Remote and type(source) is Remote and (to.shape, to.dtype) == (source.shape, source.dtype)


def _copy_in(array: np.ndarray) -> Remote:
    assert type(array) is np.ndarray
    return empty(array.shape, array.dtype)


def _view(value: Remote, shape: tuple, strides: tuple, offset: int) -> Remote:
    return Remote(shape, value.dtype, strides, value.offset + offset, value.handle)


def _nothing(*args: Any) -> Any:
    raise AssertionError("the device runs no launch plan and has nothing to wait for")


_begin: dict[
    int, tuple[int, object]
] = {}  # of each memory where it begins, and the handle, whose id nobody else may get


def _extent(value: Remote) -> tuple[int, int]:
    start = _begin.setdefault(id(value.handle), (len(_begin) << 40, value.handle))[0] + value.offset
    reach = [(size - 1) * step for size, step in zip(value.shape, value.strides, strict=True)]
    return start + sum(step for step in reach if step < 0), start + sum(
        step for step in reach if step > 0
    ) + value.dtype.itemsize


DEVICE = Device(NAME, Remote, empty, _copy, _copy_in, _refused("copy_out"), _view, _nothing, _nothing, _extent)


def _run(ins: list, outs: list, **params: Any) -> None:
    assert all(type(value) is Remote for value in (*ins, *outs))


IMPLEMENTATIONS = (host("fake", _run, "it computes nothing"),)


def install(patch: pytest.MonkeyPatch) -> None:
    """Let the device be there, with an implementation of each primitive, until the patch is undone."""
    touches.clear()
    patch.setitem(devices, NAME, DEVICE)
    for prim in {*h.all_primitives(), *(thing for thing in gc.get_objects() if type(thing) is Primitive)}:
        patch.setitem(prim.on, NAME, IMPLEMENTATIONS)


def box(array: Any) -> Tensor:
    """A tensor on the device, as one with the numbers of the array would be."""
    return wrap(_copy_in(np.asarray(array)))


def boxes(arrays: Any) -> list[Tensor]:
    """Tensors on the device."""
    return [box(array) for array in arrays]
