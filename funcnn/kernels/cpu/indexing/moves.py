"""What plans of gathering and scattering are made of: launches that look at indices, join them, pick and put."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.indexing import geometry, scatter
from funcnn.kernels.cpu.indexing.gather import gather_bytes, gather_numbers, gather_short
from funcnn.kernels.cpu.indexing.problem import (
    Chunks,
    Lane,
    Problem,
    bytes_of,
    empty_problem,
    merged,
    problem,
)
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Access, Array, Cost, Launch, LaunchPlan, Output, Status, Workers
from funcnn.kernels.layouts import contiguous_steps, laid
from funcnn.kernels.plan_parts import Parts

COPY_NS, PICK_NS = 0.15, 1.0  # nanoseconds for a byte of a line copied, and for an element that has an index of its own
CHECK_NS = 0.3  # nanoseconds for an index that is only looked at
OUTSIDE = ("an index is out of range",)
INDEX = np.dtype(np.int64)
READ = "il"  # int32, which pooling notes its places in, and int64
Limits = tuple[
    int, int, int
]  # how many places there are; the least index that is not refused; what is added to one below 0


def checked(
    indices: dict[int, Operand], sizes: list[Limits], ins: int, outputs: tuple[Output, ...]
) -> LaunchPlan | None:
    """The plan that only looks at indices (by operand), where nothing is moved; None for indices that kernels do not read."""
    if any(index.dtype.char not in READ for index in indices.values()):
        return None
    parts, inputs, launches = Parts(), [ANY] * ins, []
    for (number, index), limits in zip(indices.items(), sizes, strict=True):
        if not index.size:
            continue
        inputs[number] = Access(repeated=index.repeated)
        table = parts.constant(empty_problem(limits, number, index).table(Chunks(1, 1, 1)))
        work = CHECK_NS * index.size
        launches.append(Launch(geometry.check_places, (Array(INPUT, number), table, Status(), Workers(work))))
    return parts.plan(tuple(launches), tuple(inputs), outputs, refusals=OUTSIDE)


def joined(
    indices: dict[int, Operand], sizes: list[int], steps: tuple[int, ...], parts: Parts
) -> tuple[Array, list, dict]:
    """Several indices as one: the array that names its places, the launches that make it, and what they ask of the indices."""
    shape = next(iter(indices.values())).shape
    places, launches, inputs = parts.room("int64", prod(shape)), [], {}
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
        args = (Array(INPUT, number), table, places, steps[at], at == 0, Status(), Workers(work))
        launches.append(Launch(geometry.join_indices, args))
        inputs[number] = seen.access
    return places, launches, inputs


def _cost(p: Problem, itemsize: int, started: int = 0) -> Cost:
    moved = p.moved * itemsize
    work = COPY_NS * moved if p.by_line else PICK_NS * p.moved
    return Cost(nanoseconds=work + COPY_NS * started)


def _workers(cost: Cost, chunks: int) -> Workers:
    """Workers for so many chunks: a lone one stays with the thread that asks."""
    return Workers(cost.nanoseconds if chunks > 1 else 0.0)


def gathering(
    p: Problem,
    x: np.dtype,
    arrays: tuple[Array, Array],
    inputs: list[Access],
    parts: Parts,
    before: tuple = (),
    short: bool = False,
) -> LaunchPlan:
    """The plan of a gather of elements of x (input 0) by the places that the second array names, in 32 bits if ``short``."""
    like, cost = bytes_of(x), _cost(p, x.itemsize)
    kernel = gather_short if short else gather_numbers if x.itemsize >= 4 else gather_bytes
    cut = p.gather_chunks(x.itemsize)
    table, (source, index) = parts.constant(p.table(cut)), arrays
    out = Array(OUTPUT, 0, dtype=like)
    launch = Launch(
        kernel, (source._replace(dtype=like), index, out, table, Status(), _workers(cost, p.pieces(cut, p.place.size)))
    )
    return parts.plan((*before, launch), tuple(inputs), (Output(),), refusals=OUTSIDE, cost=cost)


def put_kernel(mode: str, dtype: np.dtype) -> tuple[Any, str | None] | None:
    """What puts elements of a dtype, and as what it reads them; None: nothing does."""
    if mode == "set":
        return scatter.scatter_set, bytes_of(dtype)
    if dtype.kind == "b":
        return (scatter.scatter_either if mode == "add" else scatter.scatter_both), "uint8"
    if dtype == np.float16:
        return None
    return (scatter.scatter_add if mode == "add" else scatter.scatter_multiply), None


def scattering(
    p: Problem,
    mode: str,
    x: Operand,
    start: int,
    arrays: tuple[Array, ...],
    inputs: list[Access],
    parts: Parts,
    before: tuple = (),
    short: bool = False,
) -> LaunchPlan:
    """The plan of a scatter into an output like x; arrays: the base, the index (in 32 bits if ``short``) and what is put."""
    kernel, like = put_kernel(mode, x.dtype)  # type: ignore[misc]
    if short and kernel is scatter.scatter_add:
        kernel = scatter.scatter_add_short
    output = Output(0) if start == scatter.THERE else Output()
    cut = p.scatter_chunks(x.itemsize)
    table = parts.constant(p.table(cut, start))
    base, index, values = arrays
    cost = _cost(p, x.itemsize, x.nbytes * (start != scatter.THERE))
    out = Array(OUTPUT, 0, dtype=like)
    workers = _workers(cost, p.pieces(cut, p.limits[0]))
    launch = Launch(
        kernel, (base._replace(dtype=like), index, values._replace(dtype=like), out, table, Status(), workers)
    )
    return parts.plan((*before, launch), tuple(inputs), (output,), refusals=OUTSIDE, cost=cost)


# ---- rows of a table, and images --------------------------------------------------------------------------------------
def picked_rows(x: Operand, index: Operand, width: int, limits: Limits, rows: int = 1) -> LaunchPlan | None:
    """The plan ``y[r, k] = x[r, index[r, k]]``, of ``rows`` rows, for lines of ``width`` elements; contiguous arrays."""
    if not x.size or not index.size:
        return checked({1: index}, [limits], 2, (Output("zeros"),))
    p, arrays = _by_rows(index, width, limits, rows), (Array(INPUT, 0), Array(INPUT, 1))
    return gathering(p, x.dtype, arrays, [CONTIGUOUS] * 2, Parts(), short=_short(index))


def put_rows(
    y: Operand, index: Operand, width: int, limits: Limits, rows: int = 1, mode: str = "add"
) -> LaunchPlan | None:
    """The plan ``x = 0, x[r, index[r, k]] (op)= y[r, k]``: the transpose of ``picked_rows`` for ``mode`` "add"."""
    if not limits[0] or not y.size:
        return checked({1: index}, [limits], 2, (Output("zeros"),))
    p = _by_rows(index, width, limits, rows)
    like = Operand((rows, limits[0], width), y.dtype, ())
    arrays = Array(OUTPUT, 0), Array(INPUT, 1), Array(INPUT, 0)
    return scattering(p, mode, like, scatter.ZEROS, arrays, [CONTIGUOUS] * 2, Parts(), short=_short(index))


def _short(index: Operand) -> bool:
    return index.itemsize == 4


def _by_rows(index: Operand, width: int, limits: Limits, rows: int) -> Problem:
    count = index.size // rows
    lanes = [Lane(rows, limits[0] * width, count, count * width), Lane(width, 1, 0, 1)]
    flat = Operand((index.size,), index.dtype, (index.itemsize,))
    return problem(lanes, 1, Lane(count, width, 1, width), limits, 1, flat)
