"""The template of reductions over some axes of a contiguous array: every element is read once.

Neighbouring axes that are alike are one, so the array is (A, B, C, D) and A and C are reduced: ``out[b, d]`` joins
``value(x[a, b, c, d])`` for all a and c, and ``finish`` makes the result of it. Contiguous runs (D = 1) are joined in
registers, at most ``RUN_ELEMENTS`` in the type of the data. Otherwise each of the D columns has an accumulator in the
first-level cache, eight rows are joined to it at a time and at most ``BLOCK_ROWS`` in the type of the data; a few columns
are read as several rows side by side, until about ``ACCUMULATORS`` work. All beyond is joined in float64, blocks pairwise.

A block is a part of one segment (C, D) or several small segments, and at most ``BLOCK_COLUMNS``. ``cuts_of`` cuts by shape
alone, so bits do not depend on threads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic, kernel_from
from funcnn.kernels.cpu.build.facts import Facts
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.instructions import pointer, shift

RUN_ELEMENTS = 2048  # contiguous, in the type of the data: 32 for each lane of four 512-bit registers of float32
BLOCK_ROWS = 256  # the rounding error grows with it, the number of partial results shrinks
BLOCK_COLUMNS = 512  # at most: eight rows of float32 fill half of a first-level cache
ACCUMULATORS = 64  # at least, where there are as many elements
CHUNK_ELEMENTS = 1 << 17  # at most, half of it at least; a power of two of chunks is dealt out evenly

# Where the kernels find in ``cuts``: the sizes of the axes; rows side by side, and full rows of a segment; rows of a block;
# into how many parts a segment is cut; segments of a block; blocks of a result; columns of a block; pieces of D; blocks of
# a chunk.
A, B, C, D, SIDE, ROWS, MOST, CUT, GROUP, BLOCKS, COLUMNS, PIECES, EACH = range(13)


class Scalars(NamedTuple):
    """Holds the functions of one element that a reduction is made of; fused code and other devices are made of them, too.

    start: what joins with any value to that value. value: ``value(x, centre, param)`` is what counts of an element.
    join: ``join(a, b)`` is one partial result of two. finish: ``finish(total, param)`` is the result of the last.
    """

    start: float
    value: Any
    join: Any
    finish: Any


@lru_cache(1024)
def cuts_of(a: int, b: int, c: int, d: int) -> np.ndarray:
    """Returns what the kernels read of an array (A, B, C, D): its sizes, and how it is cut into blocks and chunks."""
    side = min(c, max(1, ACCUMULATORS // d)) if d > 1 else 1
    rows = c // side
    most = BLOCK_ROWS if d > 1 else BLOCK_ROWS * ACCUMULATORS
    cut, group = -(-rows // most), max(1, most // (rows + 1))
    pieces = -(-d // BLOCK_COLUMNS)
    columns = d if pieces == 1 else -(-d // pieces // 16) * 16
    blocks = -(-a // group) * cut
    each = -((-blocks * pieces * b) >> (a * b * c * d // CHUNK_ELEMENTS).bit_length())
    return np.array([a, b, c, d, side, rows, most, cut, group, blocks, columns, pieces, each])


@intrinsic(twin=lambda number: np.empty(BLOCK_COLUMNS, np.asarray(number).dtype))
def accumulators(typingctx: Any, number: Any) -> Any:
    """Returns BLOCK_COLUMNS elements of the type of ``number``, on the stack."""
    from llvmlite import ir
    from numba.core import cgutils, types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_data_type(number)
        block = cgutils.alloca_once(builder, ir.ArrayType(kind, BLOCK_COLUMNS))
        block.align = 64
        return builder.bitcast(block, kind.as_pointer())

    return types.CPointer(number)(number), codegen


# ---- the template -----------------------------------------------------------------------------------------------------
def _run(q, count, total, m, param):
    for k in range(count):
        total = join(total, value(q[k], m, param))  # noqa: F821
    return total


def _runs(chunk, worker, x, centre, param, partial, out, cuts):
    a, b, c, most, cut, group = cuts[A], cuts[B], cuts[C], cuts[MOST], cuts[CUT], cuts[GROUP]
    blocks, each = cuts[BLOCKS], cuts[EACH]
    first = like(value(x[0], 0.0, param), start)  # noqa: F821
    middle, result, share = pointer(centre, 0), pointer(out, 0), pointer(partial, 0)
    place, last = chunk * each, min((chunk + 1) * each, blocks * b)
    while place < last:
        t = place // b
        begin, end = place - t * b, min(b, last - t * b)
        segment, skip = t // cut * group, t % cut * most
        length, stop = min(most, c - skip), min(a, segment + group)
        for j in range(begin, end):
            total, m = np.float64(first), middle[j] if centred else 0.0  # noqa: F821
            for i in range(segment, stop):
                p = pointer(x, (i * b + j) * c + skip)
                for at in range(0, length, RUN_ELEMENTS):
                    part = run(shift(p, at), min(RUN_ELEMENTS, length - at), first, m, param)  # noqa: F821
                    total = join(total, np.float64(part))  # noqa: F821
            if blocks == 1:
                result[j] = like(out[0], finish(total, param))  # noqa: F821
            else:
                share[t * b + j] = total
        place += end - begin


def _columns(chunk, worker, x, centre, param, partial, out, cuts):
    a, b, c, d, side, rows, most = cuts[A], cuts[B], cuts[C], cuts[D], cuts[SIDE], cuts[ROWS], cuts[MOST]
    cut, group, blocks = cuts[CUT], cuts[GROUP], cuts[BLOCKS]
    wide, pieces, each = cuts[COLUMNS], cuts[PIECES], cuts[EACH]
    first = like(value(x[0], 0.0, param), start)  # noqa: F821
    acc, middle = accumulators(first), accumulators(np.float64(0))
    for item in range(chunk * each, min((chunk + 1) * each, blocks * pieces * b)):
        j, s, t = item % b, item // b % pieces, item // (b * pieces)
        left = s * wide
        columns, begin, end = min(wide, d - left), t % cut * most, min(rows, (t % cut + 1) * most)
        width, stride = columns * side, side * d
        for k in range(width):
            acc[k] = first
        if centred:  # noqa: F821
            for i in range(side):
                for k in range(columns):
                    middle[i * columns + k] = centre[j * d + left + k]
        for i in range(t // cut * group, min(a, (t // cut + 1) * group)):
            p = pointer(x, (i * b + j) * c * d + left + begin * stride)
            spare = c * d - rows * stride if end == rows else 0
            eights = (end - begin) // 8
            for r in range(eights):
                p0 = shift(p, 8 * r * stride)
                p1, p2, p3 = shift(p0, stride), shift(p0, 2 * stride), shift(p0, 3 * stride)
                p4, p5, p6 = shift(p0, 4 * stride), shift(p0, 5 * stride), shift(p0, 6 * stride)
                p7 = shift(p0, 7 * stride)
                for k in range(width):
                    m = middle[k]
                    e = join(join(value(p0[k], m, param), value(p1[k], m, param)), value(p2[k], m, param))  # noqa: F821
                    f = join(join(value(p3[k], m, param), value(p4[k], m, param)), value(p5[k], m, param))  # noqa: F821
                    g = join(join(value(p6[k], m, param), value(p7[k], m, param)), acc[k])  # noqa: F821
                    acc[k] = join(join(e, f), g)  # noqa: F821
            for r in range(8 * eights, end - begin + 1):
                p0 = shift(p, r * stride)
                for k in range(width if r < end - begin else spare):
                    acc[k] = join(acc[k], value(p0[k], middle[k], param))  # noqa: F821
        for k in range(columns):
            middle[k] = first
        for i in range(side):
            for k in range(columns):
                middle[k] = join(middle[k], np.float64(acc[i * columns + k]))  # noqa: F821
        if blocks == 1:
            q = pointer(out, j * d + left)
            for k in range(columns):
                q[k] = like(out[0], finish(middle[k], param))  # noqa: F821
        else:
            u = pointer(partial, (t * b + j) * d + left)
            for k in range(columns):
                u[k] = middle[k]


def _reduction(x, centre, param, partial, out, cuts, threads):
    blocks, each = cuts[BLOCKS], cuts[EACH]
    chunks = (blocks * cuts[PIECES] * cuts[B] + each - 1) // each
    args = (x, centre, param, partial, out, cuts)
    if cuts[D] == 1:
        parallel_for(runs, chunks, threads, args)  # noqa: F821
    else:
        parallel_for(columns, chunks, threads, args)  # noqa: F821
    if blocks > 1:
        p, q = pointer(partial, 0), pointer(out, 0)
        while blocks > 1:
            half = (blocks + 1) // 2
            rest = shift(p, half * out.size)
            for k in range((blocks - half) * out.size):
                p[k] = join(p[k], rest[k])  # noqa: F821
            blocks = half
        for k in range(out.size):
            q[k] = like(out[0], finish(p[k], param))  # noqa: F821


def _facts(centred: bool) -> Facts:
    results = {"centre": lambda cuts: int(cuts[B] * cuts[D])} if centred else {}
    return Facts(
        {
            "x": lambda cuts: int(cuts[:4].prod()),
            "out": lambda cuts: int(cuts[B] * cuts[D]),
            "partial": lambda cuts: int(cuts[BLOCKS] * cuts[B] * cuts[D]) if cuts[BLOCKS] > 1 else 0,
            **results,
        }
    )


def reduction(
    name: str, start: float, join: Any, value: Any, finish: Any, *, run: Any = None, centred: bool = False,
    steps: Any = None,
) -> Any:  # fmt: skip
    """Makes the kernel ``(x, centre, param, partial, out, cuts, threads)`` of scalar functions, see ``Scalars``; arrays are flat.

    centre: a float64 for each of ``out``, if ``centred``. param: a float64 for ``value`` and ``finish``. partial: scratch,
    ``blocks * out.size`` float64. run: ``run(q, count, first, centre, param)`` joins contiguous elements in their own type.
    steps: where reduced axes alternate with others too often for one launch, the kernels that reduce the first group of
    neighbouring axes, those between, and the last, None being this kernel; without them NumPy does it.
    """
    own_run = run or kernel_from(_run, name + "_run", join=join, value=value)
    given = {"start": start, "join": join, "value": value, "finish": finish, "centred": centred, "run": own_run}
    runs = kernel_from(_runs, name + "_runs", **given)
    columns = kernel_from(_columns, name + "_columns", **given)
    made = kernel_from(_reduction, name, _facts(centred), join=join, finish=finish, runs=runs, columns=columns)
    made.scalar = Scalars(start, value, join, finish)
    made.steps = steps and tuple(one or made for one in steps)
    return made
