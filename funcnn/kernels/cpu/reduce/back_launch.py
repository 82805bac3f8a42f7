"""How the indices of extrema are found, and results written to all that they were reduced from, on the CPU."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.reduce import argument as indices
from funcnn.kernels.cpu.reduce import spread as gradients
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

INDEX_ELEMENT_NS, INDEX_RESULT_NS = 0.2, 8.0  # nanoseconds of an element, and of a result, where an index is found
GRADIENT_ELEMENT_NS, GRADIENT_RESULT_NS = 0.15, 10.0  # and where an extremum's gradient is written
SPREAD_ELEMENT_NS = 0.1  # and of an element of a repeated array
INDEX_ROWS_FOR_KERNEL, INDEX_ELEMENTS_FOR_KERNEL = 96, 1 << 17  # of contiguous rows: one of the two
ELEMENTS_FOR_SPREAD = 1 << 16  # below, NumPy writes out a repeated array as fast


# ---- indices -----------------------------------------------------------------------------------------------------------
def argument(sign: float) -> Implementation:
    """Makes the implementation that finds where the largest is, or with -1 the smallest, along one axis."""

    def plan(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
        (x,), axis = operands, params["axes"][0]
        if not x.size or x.dtype.char not in REAL:
            return None
        n, inner = x.shape[axis], prod(x.shape[axis + 1 :])
        work = x.size * INDEX_ELEMENT_NS + (INDEX_RESULT_NS * (x.size // n) if inner == 1 else 0.0)
        launch = Launch(indices.argument, (Array(INPUT, 0), Array(OUTPUT, 0), n, inner, sign, Workers(work)))
        return LaunchPlan((launch,), (CONTIGUOUS,), (Output(),), cost=Cost(nanoseconds=work))

    return Implementation("kernel", plan, _index_pays)


def _index_pays(operands: Operands, params: dict[str, Any]) -> bool:
    """Whether a kernel pays: on a long row NumPy is as fast as one thread, but it takes longer over each row."""
    x, axis = operands[0], params["axes"][0]
    if not many(x) or not x.contiguous:
        return False
    rows = prod(x.shape[axis + 1 :]) == 1
    return not rows or x.size >= INDEX_ELEMENTS_FOR_KERNEL or x.size // x.shape[axis] >= INDEX_ROWS_FOR_KERNEL


# ---- gradients -------------------------------------------------------------------------------------------------------
def _spread(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """Plans to write out an array that is repeated over some axes, as the gradient of a sum is."""
    (x,) = operands
    cuts = layout(x.shape, x.repeated) if x.size and x.repeated and x.dtype.char in REAL else None
    if cuts is None:
        return None
    work = x.size * SPREAD_ELEMENT_NS
    launch = Launch(gradients.spread_over, (Array(INPUT, 0), Array(OUTPUT, 0), Array(CONSTANT, 0), Workers(work)))
    return LaunchPlan(
        (launch,), (Access(repeated=x.repeated),), (Output(),), constants=(Constant(cuts),), cost=Cost(nanoseconds=work)
    )  # fmt: skip


def _spreads(operands: Operands, params: dict[str, Any]) -> bool:
    x = operands[0]
    return x.size >= ELEMENTS_FOR_SPREAD and x.without(x.repeated).contiguous


spread = Implementation("spread", _spread, _spreads)


def _extremum_grad(operands: Operands, params: dict[str, Any]) -> LaunchPlan | None:
    """Plans the gradient of an extremum, of g, x and top."""
    _, x, top = operands
    cuts = layout(x.shape, params["axes"]) if x.size and x.dtype.char in REAL else None
    if cuts is None:
        return None
    work = x.size * GRADIENT_ELEMENT_NS + top.size * GRADIENT_RESULT_NS
    args = (Array(INPUT, 1), Array(INPUT, 2), Array(INPUT, 0), Array(OUTPUT, 0), Array(CONSTANT, 0), params["spoilt"])
    launch = Launch(gradients.spread_extremum, (*args, Workers(work)))
    cost = Cost(nanoseconds=work)
    return LaunchPlan((launch,), (CONTIGUOUS,) * 3, (Output(),), constants=(Constant(cuts),), cost=cost)


def plain_extremum(ins: list, outs: list, axes: tuple, spoilt: bool) -> None:
    """Computes the same by NumPy; NaN wherever the extremum is NaN, if that is asked for."""
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
