"""What is known of a value without its numbers: shape and dtype; and the base of everything that stands in for one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Aval(NamedTuple):
    """Shape and dtype, the abstract value that shape rules take and give.

    device: where the value is. No shape rule says it: the outputs are where the inputs are.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    device: str = "cpu"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Tracer:
    """A stand-in for an array, owned by the interpreter that made it."""

    __slots__ = ("dtype", "owner", "shape")
    __array_ufunc__ = None
    device = "cpu"
    weak = False
    boxed = (
        False  # around a box of the next interpreter out, so that a history may lie inside (``interpreter.BoxTracer``)
    )

    def __init__(self, owner, shape: tuple[int, ...], dtype: np.dtype):
        self.owner, self.shape, self.dtype = owner, shape, dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def layout(self) -> np.ndarray:
        """An array that lies in memory as the value would in eager code: fresh memory, if nothing better is known."""
        return np.empty(self.shape, np.bool_)


class Missing(Tracer):
    """A value that may not be read: freed, overwritten, donated or never kept. ``owner`` is the message of the error."""

    __slots__ = ("device",)

    def __init__(self, owner, shape: tuple[int, ...], dtype: np.dtype, device: str = "cpu"):
        super().__init__(owner, shape, dtype)
        self.device = device


def is_concrete(value) -> bool:
    """Whether a value is there with its numbers, on whatever device: not traced, and not one that may not be read."""
    return not isinstance(value, Tracer)
