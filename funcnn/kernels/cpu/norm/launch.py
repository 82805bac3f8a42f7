"""How the normalisations run on the CPU: launch plans, in which a unit is what has one mean and variance."""

from __future__ import annotations

from functools import lru_cache
from math import nan, prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.elementwise.loops import repeat_number
from funcnn.kernels.cpu.machine import beyond_cache
from funcnn.kernels.cpu.norm import layer_norm, order, planes
from funcnn.kernels.cpu.norm import scale as scaling
from funcnn.kernels.cpu.norm.runs import PIECE_ELEMENTS
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand, host
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Constant, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts

CHUNK_ELEMENTS = 1 << 16  # of a chunk, about 20 us
UNIT_ELEMENTS = 256  # that cost as much as a row or unit does beside its own
SPLIT_ELEMENTS = 1 << 18  # of a unit that no longer stays in the second-level cache
SHORT_RUN_ELEMENTS = 16  # shorter runs are not worth a vector loop
FORWARD_NS, BACKWARD_NS = 0.3, 0.5  # nanoseconds of an element on one thread
ROW_NS, UNIT_NS = 30.0, 80.0  # nanoseconds of a row, and of a unit, however short
COPY_NS = 1.0  # nanoseconds of an element of a short run that is copied to its offset


class Cut(NamedTuple):
    """Says how a shape is normalised: ``plan`` is what the kernels read, see ``layout_of`` in ``planes.py``."""

    plan: Constant
    units: int
    parts: int  # blocks of units, if units are cut into blocks
    dots: int  # pieces of all units, and the units


@lru_cache(maxsize=256)
def cut_of(shape: tuple, groups: int, weight: bool, bias: bool) -> Cut:
    """Returns the cut of x (N, C, S); ``groups`` is 0 for batch norm; whether there is a weight and a bias for each channel."""
    n, c, s = shape
    if groups:
        k = c // groups
        units, layout, place = n * groups, (k, s, s, k * s), (groups, k, 1)
    else:
        units, layout, place = c, (n, s, c * s, s), (c, 1, 0)
    size, pieces = layout[0] * s, layout[0] * -(-s // PIECE_ELEMENTS)
    each, blocks = max(1, CHUNK_ELEMENTS // (size + UNIT_ELEMENTS)), 1
    if size > SPLIT_ELEMENTS or (units < 8 and size > CHUNK_ELEMENTS // 2):
        each, blocks = 1, min(pieces, -(-size // CHUNK_ELEMENTS), 1024)
    places = [place if given else (1, 0, 0) for given in (weight, bias)]
    plan = np.array([*layout, *places[0], *places[1], each, blocks])
    return Cut(Constant(plan), units, units * blocks if blocks > 1 else 0, units * (pieces + 1))


@lru_cache(maxsize=256)
def same(count: int, dtype: np.dtype, number: float) -> Constant:
    """Makes ``count`` elements that are all the same."""
    return Constant(np.full(count, number, dtype))


def _room(parts: Parts, dtype: np.dtype, past: bool) -> Array:
    """Adds the kernels' scratch for each worker."""
    return parts.each(dtype, PIECE_ELEMENTS if past else 1)


def _past(x: Operand, residuals: bool) -> bool:
    """Whether to write y past the cache. Where there are residuals a gradient may be taken: dy and dx will pass through the
    cache before x is read again, and y, which is kept, has got memory that is not in it. Else y has that of an output before.
    """
    return beyond_cache((4 if residuals else 2) * x.nbytes)


def _empty(ins: int, outs: int, number: float, dtype: np.dtype) -> LaunchPlan:
    """Makes the plan of an empty x: its statistics or the gradients of its weights are all one number."""
    parts = Parts()
    fills = tuple(
        Launch(repeat_number, (parts.constant(same(1, dtype, number)), Array(OUTPUT, i))) for i in range(1, outs)
    )
    return parts.plan(fills, (ANY,) * ins, (Output(),) * outs)


def _given(parts: Parts, first: int, ins: tuple[Operand, ...], count: int) -> tuple[Array, Array]:
    """Returns weight and bias, inputs from ``first`` on; those that are not given are ``count`` times 1 and 0."""
    dtype = ins[0].dtype
    weight = Array(INPUT, first) if len(ins) > first else parts.constant(same(count, dtype, 1.0))
    return weight, Array(INPUT, first + 1) if len(ins) > first + 1 else parts.constant(same(count, dtype, 0.0))


# ---- units --------------------------------------------------------------------------------------------------------------
class Seen:
    """Says how x (N, C, ...) is seen: as (N, C, S), or, where batch norm's runs are short, as (1, C, N S)."""

    def __init__(self, x: Operand, groups: int):
        n, c = x.shape[:2]
        self.shape: tuple[int, int, int] = (n, c, prod(x.shape[2:]))
        self.short = not groups and self.shape[2] < SHORT_RUN_ELEMENTS and n > 1
        self.taken = (1, c, n * self.shape[2]) if self.short else self.shape
        self.access = Access(order=(1, 0, *range(2, x.ndim))) if self.short else CONTIGUOUS

    def target(self, parts: Parts, dtype: np.dtype) -> tuple[Array, tuple[Launch, ...]]:
        """Returns where a kernel writes what is laid out like x, and the launch that puts it into output 0."""
        if not self.short:
            return Array(OUTPUT, 0), ()
        size = prod(self.shape)
        made = parts.room(dtype, size)
        return made, (Launch(order.batch_first, (made, Array(OUTPUT, 0, self.shape), Workers(COPY_NS * size))),)


def _units(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    """Plans y, and with residuals mean, rstd and var, of batch norm (``groups`` 0) and group norm."""
    x, groups, residuals, eps = operands[0], params["groups"], params.get("residuals", True), params["eps"]
    outs, parts = 1 + 3 * residuals, Parts()
    if not x.size:
        return _empty(len(operands), outs, nan, x.dtype)
    seen = Seen(x, groups)
    cut = cut_of(seen.taken, groups, len(operands) > 1, len(operands) > 2)
    y, last = seen.target(parts, x.dtype)
    stats = [Array(OUTPUT, i) if residuals else parts.room(x.dtype, cut.units) for i in (1, 2, 3)]
    work, past = FORWARD_NS * x.size + UNIT_NS * cut.units, _past(x, residuals)
    weight, bias = _given(parts, 1, operands, 1)
    args = (
        Array(INPUT, 0), y, weight, bias, *stats, parts.room("float64", 3 * cut.parts, (cut.parts, 3)),
        _room(parts, x.dtype, past), parts.constant(cut.plan), eps, past, Workers(work),
    )  # fmt: skip
    cost = Cost(nanoseconds=work)
    inputs = (seen.access, *(CONTIGUOUS,) * (len(operands) - 1))
    return parts.plan((Launch(planes.normalize, args), *last), inputs, (Output(),) * outs, cost=cost)


def _units_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    """Plans dx, and with a weight dweight and dbias, of dy, x, mean, rstd and the weight."""
    x, groups, weighted, parts = operands[1], params["groups"], len(operands) > 4, Parts()
    outs = 1 + 2 * weighted
    if not x.size:
        return _empty(len(operands), outs, 0.0, x.dtype)
    seen = Seen(x, groups)
    cut, channels = cut_of(seen.taken, groups, weighted, True), x.shape[1]
    dx, last = seen.target(parts, x.dtype)
    weight = Array(INPUT, 4) if weighted else parts.constant(same(1, x.dtype, 1.0))
    grads = [Array(OUTPUT, i) if weighted else parts.room(x.dtype, channels) for i in (1, 2)]
    work, past = BACKWARD_NS * x.size + UNIT_NS * cut.units, beyond_cache(3 * x.nbytes)
    args = (
        Array(INPUT, 0), Array(INPUT, 1), dx, weight, Array(INPUT, 2), Array(INPUT, 3), *grads,
        parts.room("float64", 2 * channels), parts.room("float64", 3 * cut.dots, (cut.dots, 3)),
        _room(parts, x.dtype, past), parts.constant(cut.plan), past, Workers(work),
    )  # fmt: skip
    cost = Cost(nanoseconds=work)
    inputs = (seen.access, seen.access, *(CONTIGUOUS,) * (len(operands) - 2))
    return parts.plan((Launch(planes.normalize_grad, args), *last), inputs, (Output(),) * outs, cost=cost)


units, units_grad = (Implementation("kernel", _units),), (Implementation("kernel", _units_grad),)


# ---- given statistics ---------------------------------------------------------------------------------------------------
def _scale(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    """Plans y = (x - mean) / sqrt(var + eps) * weight + bias for x (N, C, S)."""
    x, parts = operands[0], Parts()
    if not x.size:
        return _empty(len(operands), 1, nan, x.dtype)
    channels, run = x.shape[1:]
    each, past = max(1, CHUNK_ELEMENTS // (channels if run == 1 else run)), beyond_cache(2 * x.nbytes)
    work = FORWARD_NS * x.size
    arrays = Array(INPUT, 0, x.shape), Array(OUTPUT, 0, x.shape), Array(INPUT, 1), Array(INPUT, 2)
    args = (
        *arrays, *_given(parts, 3, operands, channels), parts.room(x.dtype, channels), params["eps"], each,
        _room(parts, x.dtype, past), past, Workers(work),
    )  # fmt: skip
    cost = Cost(nanoseconds=work)
    return parts.plan((Launch(scaling.scale_channels, args),), (CONTIGUOUS,) * len(operands), (Output(),), cost=cost)


def _follow(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    """Plans ``held * (1 - momentum) + batch * momentum * scale`` of each."""
    momentum, scales = params["momentum"], params["scales"]
    many, first = len(scales), operands[0]
    pairs = list(zip(operands[:many], operands[many:], strict=True))
    if first.dtype.char not in "fd" or any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return None
    launches = [
        Launch(
            scaling.follow,
            (Array(INPUT, i), Array(INPUT, many + i), Array(OUTPUT, i), 1.0 - momentum, momentum * scale),
        )
        for i, scale in enumerate(scales)
    ]
    size = sum(a.size for a, _ in pairs)
    cost = Cost(nanoseconds=size)
    outputs = tuple(Output(shares=(i,)) for i in range(many))
    return LaunchPlan(tuple(launches), (CONTIGUOUS,) * len(operands), outputs, cost=cost)


def _follow_numpy(ins: list, outs: list, momentum: float, scales: tuple) -> None:
    half = len(outs)
    for held, batch, out, scale in zip(ins[:half], ins[half:], outs, scales, strict=True):
        out[...] = held * (1.0 - momentum) + batch * (momentum * scale)


scales = (Implementation("kernel", _scale),)
follows = (Implementation("kernel", _follow), host("numpy", _follow_numpy, "statistics of other dtypes or of two"))


# ---- rows -----------------------------------------------------------------------------------------------------------
def _rows(centred: bool, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    """Plans y, and with residuals mean and rstd, of layer norm and RMS norm, for x (N, G, K) and weights (G K)."""
    x, residuals, parts = operands[0], params.get("residuals", True), Parts()
    outs = 1 + 2 * residuals
    if not x.size:
        return _empty(len(operands), outs, nan, x.dtype)
    n, g, k = x.shape
    stats = [Array(OUTPUT, i) if residuals else parts.room(x.dtype, n * g) for i in (1, 2)]
    work, past = FORWARD_NS * x.size + ROW_NS * n * g, _past(x, residuals)
    args = (
        Array(INPUT, 0, (n * g, k)), Array(OUTPUT, 0, (n * g, k)), *_given(parts, 1, operands, g * k), *stats,
        max(1, CHUNK_ELEMENTS // (k + UNIT_ELEMENTS)), g, params["eps"], centred, _room(parts, x.dtype, past), past, Workers(work),
    )  # fmt: skip
    cost = Cost(nanoseconds=work)
    launch = Launch(layer_norm.normalize_rows, args)
    return parts.plan((launch,), (CONTIGUOUS,) * len(operands), (Output(),) * outs, cost=cost)


def _rows_grad(centred: bool, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    """Plans dx, and with a weight dweight and dbias, of dy, x, mean, rstd and the weight."""
    x, weighted, parts = operands[1], len(operands) > 4, Parts()
    outs = 1 + 2 * weighted
    if not x.size:
        return _empty(len(operands), outs, 0.0, x.dtype)
    n, g, k = x.shape
    each = min(256, max(1, CHUNK_ELEMENTS // k))
    rows, blocks = (n * g, k), g * -(-n // each)
    weight = Array(INPUT, 4) if weighted else parts.constant(same(g * k, x.dtype, 1.0))
    grads = [Array(OUTPUT, i) if weighted else parts.room(x.dtype, g * k) for i in (1, 2)]
    work, past = BACKWARD_NS * x.size + ROW_NS * n * g, beyond_cache(3 * x.nbytes)
    args = (
        Array(INPUT, 0, rows), Array(INPUT, 1, rows), Array(OUTPUT, 0, rows), weight, Array(INPUT, 2), Array(INPUT, 3),
        *grads, parts.room("float64", 2 * g * k), parts.room(x.dtype, 2 * blocks * k),
        parts.each(x.dtype, layer_norm.FACTOR_ELEMENTS), each, g, centred, _room(parts, x.dtype, past), past, Workers(work),
    )  # fmt: skip
    cost = Cost(nanoseconds=work)
    launch = Launch(layer_norm.normalize_rows_grad, args)
    return parts.plan((launch,), (CONTIGUOUS,) * len(operands), (Output(),) * outs, cost=cost)


def rows(centred: bool) -> tuple[Implementation, ...]:
    """Makes the implementation of layer norm, or of RMS norm where it is not ``centred``."""
    return (Implementation("kernel", lambda operands, params: _rows(centred, operands, params)),)


def rows_grad(centred: bool) -> tuple[Implementation, ...]:
    """Makes the implementation of its gradient."""
    return (Implementation("kernel", lambda operands, params: _rows_grad(centred, operands, params)),)
