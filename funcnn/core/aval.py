"""Values without their elements: the abstract value (shape and dtype), and the base of everything that stands for an array."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Shaped:
    """What follows from a shape, for everything that stands for an array."""

    __slots__ = ()
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class _Described(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype
    device: str = "cpu"


class Aval(_Described, Shaped):
    """Describes a value by shape and dtype; shape rules take and give such abstract values.

    device: where the value is. No shape rule says it: the outputs are where the inputs are.
    """

    __slots__ = ()


class Tracer(Shaped):
    """Stands for an array while a function is transformed, owned by the interpreter that made it."""

    __slots__ = ("dtype", "owner", "shape")
    __array_ufunc__ = None
    device = "cpu"
    weak = False
    boxed = (
        False  # around a box of the next interpreter out, so that a history may lie inside (``interpreter.BoxTracer``)
    )

    def __init__(self, owner, shape: tuple[int, ...], dtype: np.dtype):
        self.owner, self.shape, self.dtype = owner, shape, dtype

    def layout(self) -> np.ndarray:
        """Returns an array with the strides that the value would have in eager code; contiguous if nothing better is known."""
        return np.empty(self.shape, np.bool_)


class Missing(Tracer):
    """Stands for a value that may not be read: freed, overwritten, donated or never kept. ``owner`` is the error's message."""

    __slots__ = ("device",)

    def __init__(self, owner, shape: tuple[int, ...], dtype: np.dtype, device: str = "cpu"):
        self.owner, self.shape, self.dtype, self.device = owner, shape, dtype, device


def is_concrete(value) -> bool:
    """Whether a value has its elements, on whatever device: it is neither traced nor unreadable."""
    return not isinstance(value, Tracer)
