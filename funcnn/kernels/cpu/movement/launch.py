"""How arrays are copied on the CPU: repeated and transposed ones by kernels where they are large, else by NumPy."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.movement import regions
from funcnn.kernels.cpu.movement.permute import transpose_planes
from funcnn.kernels.cpu.reduce.back_launch import spread
from funcnn.kernels.implementation import NUMPY, Implementation, Operand, host
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Cost, Launch, LaunchPlan, Output, Workers

ELEMENTS_FOR_KERNEL = 1 << 14  # elements; below, NumPy's copy costs less
LEAST_SIDE = 8  # rows and columns at least
ELEMENT_NS = 0.3  # nanoseconds an element


@lru_cache(1024)
def matrices(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Returns planes, rows and columns in memory of an array whose last two blocks of axes lie exchanged there; None: no such array.

    strides: in elements. The memory must have no gaps.
    """
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    order = sorted(axes, key=lambda axis: -strides[axis])
    if [strides[axis] for axis in order] != [prod(shape[later] for later in order[i + 1 :]) for i in range(len(order))]:
        return None
    lead = next((i for i, axis in enumerate(order) if axis != axes[i]), len(axes))
    here, there = axes[lead:], order[lead:]
    if not here:
        return None
    split = here.index(there[0])
    if here[split:] + here[:split] != there:
        return None
    columns = prod(shape[axis] for axis in here[:split])
    rows = prod(shape[axis] for axis in here[split:])
    return prod(shape) // (rows * columns), rows, columns


def _sizes(x: Operand) -> tuple[int, int, int] | None:
    if x.contiguous or not x.size or x.dtype.char not in "fd":
        return None
    return matrices(x.shape, tuple(stride // x.itemsize for stride in x.strides))


def _transpose(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    (x,) = operands
    sizes = _sizes(x)
    if sizes is None:
        return None
    work = x.size * ELEMENT_NS
    launch = Launch(transpose_planes, (Array(INPUT, 0), Array(OUTPUT, 0), *sizes, Workers(work)))
    return LaunchPlan((launch,), (Access(order=x.order),), (Output(),), cost=Cost(nanoseconds=work))


def _transposes(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    sizes = _sizes(operands[0]) if operands[0].size >= ELEMENTS_FOR_KERNEL else None
    return sizes is not None and min(sizes[1:]) >= LEAST_SIDE


copies = (
    spread,
    Implementation("transpose", _transpose, _transposes),
    regions.CLONE,
    host("numpy", lambda ins, outs: np.copyto(outs[0], ins[0]), NUMPY),
)
