"""How elements are picked, put and added at places that an index names: launch plans. An index outside is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.indexing import host, scatter
from funcnn.kernels.cpu.indexing.moves import (
    INDEX,
    READ,
    checked,
    gathering,
    joined,
    picked_rows,
    put_kernel,
    put_rows,
    scattering,
)
from funcnn.kernels.cpu.indexing.problem import Lane, Problem, merged, problem
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Constant, Launch, LaunchPlan, Output
from funcnn.kernels.layouts import Laid, contiguous_steps, laid
from funcnn.kernels.plan_parts import Parts


def _base(base: Operand, whole: bool) -> tuple[int, Array, Access]:
    """How the output of a scatter starts, the array that it is started from, and what is asked of that."""
    several = tuple(axis for axis in range(base.ndim) if base.shape[axis] > 1)
    if whole and several and base.repeated == several:
        return scatter.NUMBER, Array(INPUT, 0), Access(repeated=several)
    if whole and base.contiguous:
        return scatter.COPY, Array(INPUT, 0), CONTIGUOUS
    return scatter.THERE, Array(OUTPUT, 0), ANY


# ---- along an axis ----------------------------------------------------------------------------------------------------
def _along(x: tuple[int, ...], index: Operand, y: tuple[int, ...], dim: int, operand: int, size: int) -> Problem:
    """The problem of an axis of x, by the steps of x and y."""
    picks = laid(index, permuted=False).steps
    lanes = [Lane(*lane) for lane in zip(index.shape, x, picks, y, strict=True)]
    place = lanes.pop(dim)
    return problem(lanes, dim, place, (size, 0, 0), operand, index)


def _gather(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, index = operands
    size = x.shape[params["dim"]]
    if index.dtype != INDEX:
        return None
    if not index.size or not x.size:
        return checked({1: index}, [(size, 0, 0)], 2, (Output(),))
    seen = laid(x)
    p = _along(seen.steps, index, contiguous_steps(index.shape), params["dim"], 1, size)
    inputs = [seen.access, Access(repeated=index.repeated)]
    return gathering(p, x.dtype, (Array(INPUT, 0), Array(INPUT, 1)), inputs, Parts())


def _scatter(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    base, index, source = operands
    dim, mode = params["dim"], params["mode"]
    size = base.shape[dim]
    if index.dtype != INDEX or put_kernel(mode, base.dtype) is None:
        return None
    if not index.size or not base.size:
        return checked({1: index}, [(size, 0, 0)], 3, (Output(0),))
    seen = laid(source)
    p = _along(contiguous_steps(base.shape), index, seen.steps, dim, 1, size)
    start, first, access = _base(base, p.moved // p.place.size * size == base.size)
    arrays = first, Array(INPUT, 1), Array(INPUT, 2)
    return scattering(p, mode, base, start, arrays, [access, Access(repeated=index.repeated), seen.access], Parts())


# ---- on leading axes --------------------------------------------------------------------------------------------------
def _index(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, *indices = operands
    many, shape = len(indices), indices[0].shape
    numbered, limits = dict(enumerate(indices, 1)), [(s, -s, s) for s in x.shape[:many]]
    if any(index.dtype != INDEX for index in indices):
        return None
    if not indices[0].size or not x.size:
        return checked(numbered, limits, 1 + many, (Output(),))
    seen, parts = laid(x), Parts()
    steps = contiguous_steps((*shape, *x.shape[many:]))
    inner = [Lane(s, i, 0, y) for s, i, y in zip(x.shape[many:], seen.steps[many:], steps[len(shape) :], strict=True)]
    if many > 1:
        array, before, asked = joined(numbered, list(x.shape[:many]), seen.steps, parts)
        place = Lane(indices[0].size, 1, 1, prod(x.shape[many:]))
        reached = 1 + sum((size - 1) * step for size, step in zip(x.shape[:many], seen.steps, strict=False))
        p = problem(inner, 0, place, (reached, 0, 0), 1, indices[0])
        return gathering(p, x.dtype, (Array(INPUT, 0), array), [seen.access, *asked.values()], parts, tuple(before))
    picks = laid(indices[0], permuted=False)
    outer = merged([Lane(s, 0, i, y) for s, i, y in zip(shape, picks.steps, steps, strict=False)]) or [Lane(1, 0, 0, 0)]
    place = outer.pop()._replace(x=seen.steps[0])
    p = problem([*outer, *inner], len(outer), place, limits[0], 1, indices[0])
    return gathering(p, x.dtype, (Array(INPUT, 0), Array(INPUT, 1)), [seen.access, picks.access], parts)


def _places(index: Operand, values: Operand) -> tuple[Laid, Laid, Lane]:
    """An index and the values beside it, as one axis of places: as they lie, or else contiguous."""
    many = index.ndim
    plain = Laid(CONTIGUOUS, contiguous_steps(index.shape)), Laid(CONTIGUOUS, contiguous_steps(values.shape))
    for picks, seen in ((laid(index, permuted=False), laid(values)), plain):
        steps = zip(index.shape, picks.steps, seen.steps[:many], strict=True)
        axes = merged([Lane(s, 0, i, y) for s, i, y in steps])
        if len(axes) < 2:
            return picks, seen, axes[0] if axes else Lane(1, 0, 0, 0)
    raise AssertionError("contiguous arrays have one axis")


def _index_put(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    base, values, *indices = operands
    many, mode, parts = len(indices), "add" if params["accumulate"] else "set", Parts()
    sizes, inner = base.shape[:many], base.shape[many:]
    numbered = dict(enumerate(indices, 2))
    if put_kernel(mode, base.dtype) is None or any(index.dtype != INDEX for index in indices):
        return None
    if not values.size or not base.size:
        return checked(numbered, [(s, -s, s) for s in sizes], 2 + many, (Output(0),))
    steps, limits = contiguous_steps(base.shape), (sizes[0], -sizes[0], sizes[0])
    before: list[Launch] = []
    asked: dict[int, Access] = {}
    picks, seen, place = _places(indices[0], values)
    array = Array(INPUT, 2)
    if many > 1:
        array, before, asked = joined(numbered, list(sizes), contiguous_steps(sizes), parts)
        whole = Operand(indices[0].shape, INDEX, tuple(8 * step for step in contiguous_steps(indices[0].shape)))
        picks, seen, place = _places(whole, values)
        limits = prod(sizes), 0, 0
    lanes = [Lane(s, x, 0, y) for s, x, y in zip(inner, steps[many:], seen.steps[indices[0].ndim :], strict=True)]
    p = problem(lanes, 0, place._replace(x=prod(inner)), limits, 2, indices[0])
    start, first, access = _base(base, whole=True)
    inputs = [access, seen.access, *(asked.values() if asked else (picks.access,))]
    return scattering(p, mode, base, start, (first, array, Array(INPUT, 1)), inputs, parts, tuple(before))


# ---- rows of a table -------------------------------------------------------------------------------------------------------
def _rows(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    table, index = operands
    return picked_rows(table, index, table.shape[1], (table.shape[0], params["least"], 0))


def _rows_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    dy, index = operands
    return put_rows(dy, index, dy.shape[-1], (params["rows"], -1, 0))


def _one_hot(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    (index,), classes = operands, params["classes"]
    if index.dtype.char not in READ:
        return None
    limits = (classes, 0, 0)
    if not index.size or not classes:
        return checked({0: index}, [limits], 1, (Output("zeros"),))
    parts = Parts()
    p = problem([], 0, Lane(1, 1, 0, 0), limits, 0, index)._replace(line=Lane(index.size, classes, 1, 0))
    like = Operand((index.size, classes), INDEX, ())
    arrays = Array(OUTPUT, 0), Array(INPUT, 0), parts.constant(Constant(np.ones(1, np.int64)))
    made = scattering(p, "set", like, scatter.THERE, arrays, [CONTIGUOUS], parts)
    return replace(made, outputs=(Output("zeros"),))


# ---- looking alone ----------------------------------------------------------------------------------------------------
def _look_along(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, index = operands[:2]
    return checked({1: index}, [(x.shape[params["dim"]], 0, 0)], len(operands), ())


def _look_at(first: int, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    sizes = operands[0].shape
    numbered = dict(enumerate(operands[first:], first))
    return checked(numbered, [(size, -size, size) for size in sizes[: len(numbered)]], len(operands), ())


def _look_at_classes(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    return checked({0: operands[0]}, [(params["classes"], 0, 0)], 1, ())


def _few_of_many(picked: int, operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    """Whether a kernel pays: not where it would first copy an array with gaps of which it reads a part."""
    x = operands[picked]
    return x.without(x.repeated).order is not None or x.size <= operands[1].size


ROWS, ROWS_GRAD = (Implementation("kernel", _rows),), (Implementation("kernel", _rows_grad),)
GATHER, INDEX_AT = (
    (Implementation("kernel", plan, partial(_few_of_many, 0)), way)
    for plan, way in ((_gather, host.GATHER), (_index, host.INDEX))
)
SCATTER, INDEX_PUT = (
    (Implementation("kernel", plan), way) for plan, way in ((_scatter, host.SCATTER), (_index_put, host.INDEX_PUT))
)
ONE_HOT = (Implementation("kernel", _one_hot), host.ONE_HOT)
LOOK_AT_CLASSES = (Implementation("kernel", _look_at_classes), host.LOOK_AT_CLASSES)
LOOK_ALONG, LOOK_AT, LOOK_PUT = (
    (Implementation("kernel", plan), way)
    for plan, way in (
        (_look_along, host.LOOK_ALONG),
        (partial(_look_at, 1), host.LOOK_AT),
        (partial(_look_at, 2), host.LOOK_PUT),
    )
)
