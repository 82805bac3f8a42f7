"""The contract between a rule and a kernel: an implementation plans from what is known of operands without their elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.launch import Access, HostPlan, LaunchPlan

NUMPY = "NumPy's function, which costs less for few elements"  # reasons of host implementations
REAL = "fd"  # the dtypes that kernels of floating-point numbers compute in
CONTIGUOUS = Access()
ANY = Access(any=True)


@dataclass(frozen=True)
class Operand:
    """What a plan may know of an array: shape, dtype, strides in bytes, and whether it stays the same from call to call."""

    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...]
    constant: bool = False

    @property
    def ndim(self) -> int:
        """Counts the axes."""
        return len(self.shape)

    @cached_property
    def size(self) -> int:
        """Counts the elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Counts the bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Counts the bytes of all elements."""
        return self.size * self.dtype.itemsize

    @cached_property
    def contiguous(self) -> bool:
        """Whether the elements are contiguous in the order of the axes."""
        return _contiguous(self.shape, self.strides, self.dtype.itemsize)

    @cached_property
    def repeated(self) -> tuple[int, ...]:
        """Lists the axes of stride 0, along which one element is broadcast."""
        pairs = enumerate(zip(self.shape, self.strides, strict=True))
        return tuple(axis for axis, (size, stride) in pairs if size > 1 and stride == 0)

    @cached_property
    def order(self) -> tuple[int, ...] | None:
        """Lists the axes from the longest stride to the shortest if the array is contiguous in that order; else it is None."""
        order = tuple(sorted(range(self.ndim), key=lambda axis: (-self.strides[axis], axis)))
        shape, strides = (tuple(values[axis] for axis in order) for values in (self.shape, self.strides))
        return order if _contiguous(shape, strides, self.dtype.itemsize) else None

    def permuted(self, order: tuple[int, ...]) -> Operand:
        """Returns the operand with its axes in another order."""
        shape, strides = (tuple(values[axis] for axis in order) for values in (self.shape, self.strides))
        return Operand(shape, self.dtype, strides, self.constant)

    def without(self, axes: tuple[int, ...]) -> Operand:
        """Returns the operand at index 0 of some axes."""
        kept = [axis for axis in range(self.ndim) if axis not in axes]
        shape, strides = (tuple(values[axis] for axis in kept) for values in (self.shape, self.strides))
        return Operand(shape, self.dtype, strides, self.constant)


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> bool:
    if 0 in shape:
        return True
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != step:
                return False
            step *= size
    return True


def operand_of(array: Any) -> Operand:
    """Describes an array as a plan may know it."""
    return Operand(array.shape, array.dtype, array.strides)


@dataclass(frozen=True)
class Implementation:
    """One way to compute a primitive. ``plan(operands, params)`` is pure and says how, or None where it does not apply.

    It reads no elements and no ambient state, allocates nothing, and is asked once for each kind of operands.
    pays: ``pays(operands, params)`` says whether it is chosen where it applies and later ones may apply, too; by default it is.
    reason: of a host implementation, why it is one.
    """

    name: str
    plan: Callable[[tuple[Operand, ...], dict[str, Any]], LaunchPlan | HostPlan | None]
    pays: Callable[[tuple[Operand, ...], dict[str, Any]], bool] | None = None
    reason: str | None = None


def host(
    name: str,
    run: Callable,
    reason: str,
    applies: Callable[..., bool] | None = None,
    pays: Callable[..., bool] | None = None,
) -> Implementation:
    """Makes an implementation of a Python function ``run(ins, outs, **params)`` on arrays, where ``applies(operands, **params)``.

    reason: why there is no kernel in its place, for ``python -m funcnn.plans --host``. pays: as of an implementation, with the
    parameters by name.
    """
    made = HostPlan(run, reason)
    chosen = None if pays is None else lambda operands, params: pays(operands, **params)
    if applies is None:
        return Implementation(name, lambda operands, params: made, chosen, reason)
    return Implementation(name, lambda operands, params: made if applies(operands, **params) else None, chosen, reason)
