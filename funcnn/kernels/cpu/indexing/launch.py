"""How elements are picked, put and added at places that an index names: launch plans. An index outside is refused."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.indexing import geometry, host, scatter
from funcnn.kernels.cpu.indexing.gather import gather_bytes, gather_numbers
from funcnn.kernels.cpu.indexing.problem import (
    Chunks,
    Laid,
    Lane,
    Problem,
    bytes_of,
    contiguous_steps,
    empty_problem,
    laid,
    merged,
    problem,
)
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Cost, Launch, LaunchPlan, Output, Status, Workers
from funcnn.kernels.plan_parts import Parts

COPY_NS, PICK_NS = 0.15, 1.0  # nanoseconds for a byte of a line copied, and for an element that has an index of its own
CHECK_NS = 0.3  # nanoseconds for an index that is only looked at
OUTSIDE = ("an index is out of range",)
INDEX = np.dtype(np.int64)
Limits = tuple[
    int, int, int
]  # how many places there are; the least index that is not refused; what is added to one below 0


# ---- parts of plans ---------------------------------------------------------------------------------------------------
def _checked(indices: dict[int, Operand], sizes: list[Limits], ins: int, outputs: tuple[Output, ...]) -> LaunchPlan:
    """The plan that only looks at indices (by operand), for arrays of which nothing is moved."""
    parts, inputs, launches = Parts(), [ANY] * ins, []
    for (number, index), limits in zip(indices.items(), sizes, strict=True):
        if not index.size:
            continue
        inputs[number] = Access(repeated=index.repeated)
        table = parts.constant(empty_problem(limits, number, index).table(Chunks(1, 1, 1)))
        work = CHECK_NS * index.size
        launches.append(Launch(geometry.check_places, (Array(INPUT, number), table, Status(), Workers(work))))
    return parts.plan(tuple(launches), tuple(inputs), outputs, refusals=OUTSIDE)


def _joined(
    indices: dict[int, Operand], sizes: list[int], steps: tuple[int, ...], parts: Parts
) -> tuple[Array, list, dict]:
    """Several indices as one: the array that names its places, the launches that make it, and what they ask of the indices."""
    shape = next(iter(indices.values())).shape
    joined, launches, inputs = parts.room("int64", prod(shape)), [], {}
    for at, (number, index) in enumerate(indices.items()):
        seen = laid(index, permuted=False)
        lanes = [Lane(s, 0, i, y) for s, i, y in zip(shape, seen.steps, contiguous_steps(shape), strict=True)]
        axes = merged(lanes) or [Lane(1, 0, 0, 0)]
        size = sizes[at]
        made = problem(axes[:-1], len(axes) - 1, Lane(1, 0, 0, 0), (size, -size, size), number, index)._replace(
            line=axes[-1], rows=axes[:-1]
        )
        table = parts.constant(made.table(made.gather_chunks(8)))
        work = PICK_NS * index.size
        args = (Array(INPUT, number), table, joined, steps[at], at == 0, Status(), Workers(work))
        launches.append(Launch(geometry.join_indices, args))
        inputs[number] = seen.access
    return joined, launches, inputs


def _cost(p: Problem, itemsize: int, started: int = 0) -> Cost:
    moved = p.moved * itemsize
    work = COPY_NS * moved if p.by_line else PICK_NS * p.moved
    return Cost(0.0, 2.0 * moved + started, work + COPY_NS * started)


def _workers(cost: Cost, chunks: int) -> Workers:
    """Workers for so many chunks: a lone one stays with the thread that asks."""
    return Workers(cost.nanoseconds if chunks > 1 else 0.0)


def _gathering(
    p: Problem,
    x: np.dtype,
    arrays: tuple[Array, Array],
    inputs: list[Access],
    parts: Parts,
    before: tuple = (),
    **more: Any,
) -> LaunchPlan:
    """The plan of a gather of elements of x (input 0) by the places that the second array names."""
    like, cost = bytes_of(x), _cost(p, x.itemsize)
    kernel = gather_numbers if x.itemsize >= 4 else gather_bytes
    cut = p.gather_chunks(x.itemsize)
    table, (source, index) = parts.constant(p.table(cut)), arrays
    out = Array(OUTPUT, 0, dtype=like)
    launch = Launch(
        kernel, (source._replace(dtype=like), index, out, table, Status(), _workers(cost, p.count(cut, p.place.size)))
    )
    return parts.plan((*before, launch), tuple(inputs), (Output(),), refusals=OUTSIDE, cost=cost, **more)


def _put_kernel(mode: str, dtype: np.dtype) -> tuple[Any, str | None] | None:
    """What puts elements of a dtype, and as what it reads them; None: nothing does."""
    if mode == "set":
        return scatter.scatter_set, bytes_of(dtype)
    if dtype.kind == "b":
        return (scatter.scatter_either if mode == "add" else scatter.scatter_both), "uint8"
    if dtype == np.float16:
        return None
    return (scatter.scatter_add if mode == "add" else scatter.scatter_multiply), None


def _scattering(
    p: Problem,
    mode: str,
    x: Operand,
    start: int,
    arrays: tuple[Array, ...],
    inputs: list[Access],
    parts: Parts,
    before: tuple = (),
) -> LaunchPlan:
    """The plan of a scatter into an output like x; arrays: the base, the index and what is put."""
    kernel, like = _put_kernel(mode, x.dtype)  # type: ignore[misc]
    output = Output(0) if start == scatter.THERE else Output()
    cut = p.scatter_chunks(x.itemsize)
    table = parts.constant(p.table(cut, start))
    base, index, values = arrays
    cost = _cost(p, x.itemsize, x.nbytes * (start != scatter.THERE))
    out = Array(OUTPUT, 0, dtype=like)
    args = (base._replace(dtype=like), index, values._replace(dtype=like), out, table, Status())
    args = (*args, _workers(cost, p.count(cut, p.limits[0])))
    return parts.plan((*before, Launch(kernel, args)), tuple(inputs), (output,), refusals=OUTSIDE, cost=cost)


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
        return _checked({1: index}, [(size, 0, 0)], 2, (Output(),))
    seen = laid(x)
    p = _along(seen.steps, index, contiguous_steps(index.shape), params["dim"], 1, size)
    inputs = [seen.access, Access(repeated=index.repeated)]
    return _gathering(p, x.dtype, (Array(INPUT, 0), Array(INPUT, 1)), inputs, Parts())


def _scatter(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    base, index, source = operands
    dim, mode = params["dim"], params["mode"]
    size = base.shape[dim]
    if index.dtype != INDEX or _put_kernel(mode, base.dtype) is None:
        return None
    if not index.size or not base.size:
        return _checked({1: index}, [(size, 0, 0)], 3, (Output(0),))
    seen = laid(source)
    p = _along(contiguous_steps(base.shape), index, seen.steps, dim, 1, size)
    start, first, access = _base(base, p.moved // p.place.size * size == base.size)
    arrays = first, Array(INPUT, 1), Array(INPUT, 2)
    return _scattering(p, mode, base, start, arrays, [access, Access(repeated=index.repeated), seen.access], Parts())


# ---- on leading axes --------------------------------------------------------------------------------------------------
def _index(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, *indices = operands
    many, shape = len(indices), indices[0].shape
    numbered, limits = dict(enumerate(indices, 1)), [(s, -s, s) for s in x.shape[:many]]
    if any(index.dtype != INDEX for index in indices):
        return None
    if not indices[0].size or not x.size:
        return _checked(numbered, limits, 1 + many, (Output(),))
    seen, parts = laid(x), Parts()
    steps = contiguous_steps((*shape, *x.shape[many:]))
    inner = [Lane(s, i, 0, y) for s, i, y in zip(x.shape[many:], seen.steps[many:], steps[len(shape) :], strict=True)]
    if many > 1:
        joined, before, asked = _joined(numbered, list(x.shape[:many]), seen.steps, parts)
        place = Lane(indices[0].size, 1, 1, prod(x.shape[many:]))
        reached = 1 + sum((size - 1) * step for size, step in zip(x.shape[:many], seen.steps, strict=False))
        p = problem(inner, 0, place, (reached, 0, 0), 1, indices[0])
        return _gathering(p, x.dtype, (Array(INPUT, 0), joined), [seen.access, *asked.values()], parts, tuple(before))
    picks = laid(indices[0], permuted=False)
    outer = merged([Lane(s, 0, i, y) for s, i, y in zip(shape, picks.steps, steps, strict=False)]) or [Lane(1, 0, 0, 0)]
    place = outer.pop()._replace(x=seen.steps[0])
    p = problem([*outer, *inner], len(outer), place, limits[0], 1, indices[0])
    return _gathering(p, x.dtype, (Array(INPUT, 0), Array(INPUT, 1)), [seen.access, picks.access], parts)


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
    if _put_kernel(mode, base.dtype) is None or any(index.dtype != INDEX for index in indices):
        return None
    if not values.size or not base.size:
        return _checked(numbered, [(s, -s, s) for s in sizes], 2 + many, (Output(0),))
    steps, before, asked, limits = contiguous_steps(base.shape), [], {}, (sizes[0], -sizes[0], sizes[0])
    picks, seen, place = _places(indices[0], values)
    array = Array(INPUT, 2)
    if many > 1:
        array, before, asked = _joined(numbered, list(sizes), contiguous_steps(sizes), parts)
        whole = Operand(indices[0].shape, INDEX, tuple(8 * step for step in contiguous_steps(indices[0].shape)))
        picks, seen, place = _places(whole, values)
        limits = prod(sizes), 0, 0
    lanes = [Lane(s, x, 0, y) for s, x, y in zip(inner, steps[many:], seen.steps[indices[0].ndim :], strict=True)]
    p = problem(lanes, 0, place._replace(x=prod(inner)), limits, 2, indices[0])
    start, first, access = _base(base, whole=True)
    inputs = [access, seen.access, *(asked.values() if asked else (picks.access,))]
    return _scattering(p, mode, base, start, (first, array, Array(INPUT, 1)), inputs, parts, tuple(before))


# ---- rows of a table, and images --------------------------------------------------------------------------------------
def picked_rows(x: Operand, index: Operand, width: int, limits: Limits, rows: int = 1) -> LaunchPlan:
    """The plan ``y[r, k] = x[r, index[r, k]]``, of ``rows`` rows, for lines of ``width`` elements; contiguous arrays."""
    if not x.size or not index.size:
        return _checked({1: index}, [limits], 2, (Output("zeros"),))
    return _gathering(
        _by_rows(index, width, limits, rows), x.dtype, (Array(INPUT, 0), Array(INPUT, 1)), [CONTIGUOUS] * 2, Parts()
    )


def put_rows(y: Operand, index: Operand, width: int, limits: Limits, rows: int = 1, mode: str = "add") -> LaunchPlan:
    """The plan ``x = 0, x[r, index[r, k]] (op)= y[r, k]``: the transpose of ``picked_rows`` for ``mode`` "add"."""
    if not limits[0] or not y.size:
        return _checked({1: index}, [limits], 2, (Output("zeros"),))
    p = _by_rows(index, width, limits, rows)
    like = Operand((rows, limits[0], width), y.dtype, ())
    arrays = Array(OUTPUT, 0), Array(INPUT, 1), Array(INPUT, 0)
    return _scattering(p, mode, like, scatter.ZEROS, arrays, [CONTIGUOUS] * 2, Parts())


def _by_rows(index: Operand, width: int, limits: Limits, rows: int) -> Problem:
    count = index.size // rows
    lanes = [Lane(rows, limits[0] * width, count, count * width), Lane(width, 1, 0, 1)]
    flat = Operand((index.size,), index.dtype, (index.itemsize,))
    return problem(lanes, 1, Lane(count, width, 1, width), limits, 1, flat)


def _rows(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    table, index = operands
    return picked_rows(table, index, table.shape[1], (table.shape[0], params["least"], 0))


def _rows_grad(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    dy, index = operands
    return put_rows(dy, index, dy.shape[-1], (params["rows"], -1, 0))


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
