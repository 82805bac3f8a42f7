"""How elements are found, put and taken by masks: launch plans. What is found has a bound, and a count word."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.indexing import masks as kernels
from funcnn.kernels.cpu.indexing.problem import bytes_of
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import (
    INPUT,
    OUTPUT,
    Access,
    Array,
    Constant,
    Cost,
    Count,
    Launch,
    LaunchPlan,
    Output,
    Status,
    Workers,
)  # fmt: skip
from funcnn.kernels.plan_parts import Parts

LOOK_NS, FIND_NS = (
    0.3,
    1.5,
)  # nanoseconds for an element of a mask that is looked at twice, and for one that is found or moved
TOO_MANY = ("more places than elements",)


def _find(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    (x,) = operands
    parts, by_axis = Parts(), params["by_axis"]
    output = Output(front=1 if by_axis else 0)
    step, apart = (1, x.size) if by_axis else (x.ndim, 1)
    work = (LOOK_NS + FIND_NS) * x.size
    sizes = parts.constant(Constant(np.array(x.shape, np.int64)))
    args = (
        Array(INPUT, 0, dtype="uint8"),
        sizes,
        Array(OUTPUT, 0),
        step,
        apart,
        _counts(parts, x),
        Count(),
        Workers(work),
    )
    cost = Cost(nanoseconds=work)
    return parts.plan((Launch(kernels.nonzero, args),), (CONTIGUOUS,), (output,), cost=cost)


def _counts(parts: Parts, mask: Operand) -> Array:
    return parts.room("int64", kernels.counts_of(mask.size))


def _put(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, mask = operands[:2]
    parts, like, work = Parts(), bytes_of(x.dtype), (LOOK_NS + FIND_NS) * mask.size
    args = (
        Array(INPUT, 1, dtype="uint8"), Array(INPUT, 2, dtype=like), Array(OUTPUT, 0, dtype=like), _counts(parts, mask),
        Status(), Workers(work),
    )  # fmt: skip
    inputs, cost = (Access(any=True), CONTIGUOUS, CONTIGUOUS), Cost(nanoseconds=work)
    return parts.plan((Launch(kernels.masked_put, args),), inputs, (Output(0),), refusals=TOO_MANY, cost=cost)


def _look(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    mask, parts = operands[1], Parts()
    args = (
        Array(INPUT, 1, dtype="uint8"),
        operands[2].size,
        _counts(parts, mask),
        Status(),
        Workers(LOOK_NS * mask.size),
    )
    anything = Access(any=True)
    return parts.plan((Launch(kernels.look_at_mask, args),), (anything, CONTIGUOUS, anything), (), refusals=TOO_MANY)


def _take(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, mask = operands
    parts, like, work = Parts(), bytes_of(x.dtype), (LOOK_NS + FIND_NS) * mask.size
    arrays = Array(INPUT, 0, dtype=like), Array(INPUT, 1, dtype="uint8"), Array(OUTPUT, 0, dtype=like)
    launch = Launch(kernels.masked_take, (*arrays, _counts(parts, mask), Workers(work)))
    return parts.plan((launch,), (CONTIGUOUS, CONTIGUOUS), (Output(),), cost=Cost(nanoseconds=work))


NONZERO = (Implementation("kernel", _find),)
MASKED_PUT, MASKED_TAKE, LOOK_MASKED = ((Implementation("kernel", plan),) for plan in (_put, _take, _look))
