"""How the elements of an array lie in memory: contiguous strides, and the layout in which a plan reads an operand uncopied."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from funcnn.kernels.implementation import Operand
from funcnn.kernels.launch import Access


class Laid(NamedTuple):
    """How an operand reaches a kernel: what is asked of its layout, and how far apart neighbours then lie, by its axes."""

    access: Access
    steps: tuple[int, ...]


def contiguous_steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the strides of contiguous elements, counted in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def laid(x: Operand, permuted: bool = True) -> Laid:
    """Returns how an operand is read without a copy where it has no gaps: one element of repeated axes, others in any order if
    ``permuted``.
    """
    repeated = x.repeated
    kept = [axis for axis in range(x.ndim) if axis not in repeated]
    seen = x.without(repeated)
    order = seen.order if permuted and not seen.contiguous else None
    axes = range(len(kept)) if order is None else order
    steps = [0] * x.ndim
    step = 1
    for axis in reversed(axes):
        steps[kept[axis]] = step
        step *= seen.shape[axis]
    return Laid(Access(order=order, repeated=repeated), tuple(steps))
