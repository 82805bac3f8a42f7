"""How extrema are found again, and results spread over what they were reduced from, on the CPU."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.reduce import argument as places
from funcnn.kernels.cpu.reduce import spread as reduce_back
from funcnn.kernels.cpu.reduce.launch import Operands, layout, many, pays
from funcnn.kernels.implementation import CONTIGUOUS, NUMPY, REAL, Implementation, host
from funcnn.kernels.launch import (
    CONSTANT,
    INPUT,
    OUTPUT,
    Access,
    Array,
    Constant,
    Cost,
    Launch,
    LaunchPlan,
    Output,
    Workers,
)

ARGUMENT_COST, ARGUMENT_EACH = 0.2, 8.0  # nanoseconds a number, and a result, where the place of one is looked for
EXTREMUM_COST, EXTREMUM_EACH = 0.15, 10.0  # and where an extremum's gradient is spread
SPREAD, SPREAD_COST = 1 << 16, 0.1  # numbers; below, NumPy writes out a repeated array. Nanoseconds a number


# ---- places -----------------------------------------------------------------------------------------------------------
def argument(sign: float) -> Implementation:
    """The implementation of where the largest is, or with -1 the smallest, along one axis."""

    def plan(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
        (x,), axis = operands, params["axes"][0]
        if not x.size or x.dtype.char not in REAL:
            return None
        n, inner = x.shape[axis], prod(x.shape[axis + 1 :])
        work = x.size * ARGUMENT_COST + (ARGUMENT_EACH * (x.size // n) if inner == 1 else 0.0)
        launch = Launch(places.argument, (Array(INPUT, 0), Array(OUTPUT, 0), n, inner, sign, Workers(work)))
        return LaunchPlan((launch,), (CONTIGUOUS,), (Output(),), cost=Cost(x.size, x.nbytes, work))

    return Implementation("kernel", plan, lambda operands, params: many(operands[0]) and operands[0].contiguous)


# ---- the way back -------------------------------------------------------------------------------------------------------
def _spread(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """Write out an array that is repeated over some axes, as the gradient of a sum is."""
    (x,) = operands
    plan = layout(x.shape, x.repeated) if x.size and x.repeated and x.dtype.char in REAL else None
    if plan is None:
        return None
    work = x.size * SPREAD_COST
    launch = Launch(reduce_back.spread_over, (Array(INPUT, 0), Array(OUTPUT, 0), Array(CONSTANT, 0), Workers(work)))
    return LaunchPlan(
        (launch,), (Access(repeated=x.repeated),), (Output(),), constants=(Constant(plan),), cost=Cost(0.0, x.nbytes, work)
    )  # fmt: skip


def _spreads(operands: Operands, params: dict[str, Any]) -> bool:
    x = operands[0]
    return x.size >= SPREAD and x.without(x.repeated).contiguous


spread = Implementation("spread", _spread, _spreads)


def _extremum_grad(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """The gradient of an extremum, of g, x and top."""
    _, x, top = operands
    plan = layout(x.shape, params["axes"]) if x.size and x.dtype.char in REAL else None
    if plan is None:
        return None
    work = x.size * EXTREMUM_COST + top.size * EXTREMUM_EACH
    args = (Array(INPUT, 1), Array(INPUT, 2), Array(INPUT, 0), Array(OUTPUT, 0), Array(CONSTANT, 0), params["spoilt"])
    launch = Launch(reduce_back.spread_extremum, (*args, Workers(work)))
    cost = Cost(2 * x.size, 2 * x.nbytes, work)
    return LaunchPlan((launch,), (CONTIGUOUS,) * 3, (Output(),), constants=(Constant(plan),), cost=cost)


def plain_extremum(ins: list, outs: list, axes: tuple, spoilt: bool) -> None:
    """The same by NumPy; NaN wherever the extremum is NaN, if that is asked for."""
    g, x, top = ins
    tells = (x == np.expand_dims(top, axes)) | (x != x)
    count = np.add.reduce(tells, axes, np.float64, keepdims=True)
    np.multiply(tells, (np.expand_dims(g, axes) / count).astype(x.dtype), out=outs[0])
    if spoilt and (lost := top != top).any():
        np.copyto(outs[0], np.nan, where=np.expand_dims(lost, axes))


EXTREMUM_GRAD = (
    Implementation("kernel", _extremum_grad, lambda ops, params: ops[1].contiguous and pays(ops[1:], params)),
    host("numpy", plain_extremum, NUMPY),
)
