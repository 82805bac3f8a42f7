"""How arrays are copied on the CPU: repeated and transposed ones by kernels where they are large, else by NumPy."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.movement import regions
from funcnn.kernels.cpu.movement.permute import turn_planes
from funcnn.kernels.cpu.reduce.back_launch import spread
from funcnn.kernels.implementation import NUMPY, Implementation, Operand, host
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Cost, Launch, LaunchPlan, Output, Workers

LARGE = 1 << 14  # numbers; below, NumPy's copy costs less
SIDE = 8  # rows and columns at least
COST = 0.3  # nanoseconds a number


@lru_cache(1024)
def matrices(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Planes, rows and columns in memory of an array whose last two blocks of axes lie exchanged there; None: no such array.

    strides: in numbers. The memory must have no gaps.
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


def _turn(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    (x,) = operands
    sizes = _sizes(x)
    if sizes is None:
        return None
    work = x.size * COST
    launch = Launch(turn_planes, (Array(INPUT, 0), Array(OUTPUT, 0), *sizes, Workers(work)))
    return LaunchPlan((launch,), (Access(order=x.order),), (Output(),), cost=Cost(0.0, 2.0 * x.nbytes, work))


def _turns(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    sizes = _sizes(operands[0]) if operands[0].size >= LARGE else None
    return sizes is not None and min(sizes[1:]) >= SIDE


copies = (
    spread,
    Implementation("turn", _turn, _turns),
    regions.CLONE,
    host("numpy", lambda ins, outs: np.copyto(outs[0], ins[0]), NUMPY),
)
