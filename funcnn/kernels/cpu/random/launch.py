"""How random numbers and dropout are drawn on the CPU: launch plans. A row of the output is drawn from each key."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.random import draw as kernels
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import (
    INPUT,
    OUTPUT,
    SCRATCH,
    Array,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Scratch,
    Workers,
)  # fmt: skip

BITS, CHILDREN, FOLD = (
    0,
    1,
    2,
)  # the streams of a key: what is drawn from it, what it is split into, what is folded into it
ELEMENTS_FOR_KERNEL = 1 << 14  # words from which a kernel pays
KEYS_FOR_KERNEL = 1 << 4


def _room() -> tuple[Scratch, ...]:
    return (Scratch("uint32", kernels.SCRATCH_WORDS, each_worker=True),)


def _rows_plan(kernel: Any, nanoseconds: float, stream: int, keys: Operand, count: int) -> LaunchPlan:
    rows = keys.size // 2
    work = nanoseconds * rows * count
    arrays = Array(INPUT, 0, (rows, 2)), Array(OUTPUT, 0, (rows, count))
    launch = Launch(kernel, (*arrays, stream, Array(SCRATCH, 0), Workers(work)))
    cost = Cost(nanoseconds=work)
    return LaunchPlan((launch,), (CONTIGUOUS,), (Output(),), _room(), cost=cost)


def drawn(kernel: Any, nanoseconds: float) -> Implementation:
    """Returns the implementation by a kernel that draws numbers of a shape from each key, of so many nanoseconds an element."""
    return Implementation(
        "kernel",
        lambda operands, params: _rows_plan(kernel, nanoseconds, BITS, operands[0], prod(params["shape"])),
        lambda operands, params: prod(params["shape"]) >= ELEMENTS_FOR_KERNEL,
    )


WORDS, UNIFORM, NORMAL = drawn(kernels.words, 0.5), drawn(kernels.uniform, 0.5), drawn(kernels.normal, 1.0)


# ---- keys from keys -----------------------------------------------------------------------------------------------------
def _fold_plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    data = operands[1]
    if data.dtype != np.int64:
        return None
    arrays = Array(INPUT, 0, (data.size, 2)), Array(INPUT, 1), Array(OUTPUT, 0, (data.size, 2))
    cost = Cost(nanoseconds=20.0 * data.size)
    return LaunchPlan((Launch(kernels.fold, (*arrays, FOLD)),), (CONTIGUOUS,) * 2, (Output(),), cost=cost)


SPLIT = Implementation(
    "kernel",
    lambda operands, params: _rows_plan(kernels.words, 0.5, CHILDREN, operands[0], 2 * params["num"]),
    lambda operands, params: 2 * params["num"] >= ELEMENTS_FOR_KERNEL,
)
FOLD_IN = Implementation("kernel", _fold_plan, lambda operands, params: operands[1].size >= KEYS_FOR_KERNEL)


# ---- dropout ----------------------------------------------------------------------------------------------------------
def level(p: float) -> int:
    """Returns the level above which a word decides to keep: exactly when its leading 24 bits, as a fraction, exceed p in float32."""
    return min((int(float(np.float32(p)) * 2.0**24) << 8) + 255, 0xFFFFFFFF)


def _dropout_plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, keys = operands
    if x.dtype.char not in "fd":
        return None
    rows, p = keys.size // 2, params["p"]
    shape, work = (rows, x.size // max(rows, 1)), 0.6 * x.size
    arrays = Array(INPUT, 1, (rows, 2)), Array(INPUT, 0, shape), Array(OUTPUT, 0, shape)
    numbers = np.uint32(level(p)), x.dtype.type(1.0 / (1.0 - p))
    launch = Launch(kernels.dropout, (*arrays, BITS, *numbers, Array(SCRATCH, 0), Workers(work)))
    cost = Cost(nanoseconds=work)
    return LaunchPlan((launch,), (CONTIGUOUS,) * 2, (Output(shares=(0,)),), _room(), cost=cost)


DROPOUT = Implementation("kernel", _dropout_plan, lambda operands, params: operands[0].size >= ELEMENTS_FOR_KERNEL)
