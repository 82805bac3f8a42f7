"""How arrays are copied on the CPU: repeated and transposed ones by kernels where they are large, else by NumPy."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.movement.permute import turn_planes
from funcnn.kernels.cpu.reduce.launch import is_spread, spread
from funcnn.kernels.cpu.threads.number import workers
from funcnn.kernels.implementation import NUMPY, UNPLANNED, host

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
    split = here.index(there[0]) if there else 0
    if here[split:] + here[:split] != there:
        return None
    columns = prod(shape[axis] for axis in here[:split])
    rows = prod(shape[axis] for axis in here[split:])
    return (prod(shape) // (rows * columns), rows, columns) if min(rows, columns) >= SIDE else None


def _turn(ins: list, outs: list) -> None:
    x = ins[0]
    sizes = matrices(x.shape, tuple(stride // x.itemsize for stride in x.strides))
    assert sizes is not None, "_turns() says which arrays are turned"
    lying = np.lib.stride_tricks.as_strided(x, (x.size,), (x.itemsize,))
    turn_planes(lying, outs[0].reshape(-1), *sizes, workers(x.size * COST))


def _turns(ins: Any) -> bool:
    x = ins[0]
    if x.contiguous or x.size < LARGE or x.dtype.char not in "fd":
        return False
    return matrices(x.shape, tuple(stride // x.itemsize for stride in x.strides)) is not None


copies = (
    host("spread", spread, UNPLANNED, is_spread),
    host("turn", _turn, UNPLANNED, _turns),
    host("numpy", lambda ins, outs: np.copyto(outs[0], ins[0]), NUMPY),
)
