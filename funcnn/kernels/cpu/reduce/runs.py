"""Sums, products, sums of powers of deviations, and extrema over some axes of a contiguous array: every number is read once.

Neighbouring axes that are alike are one, so the array is (A, B, C, D) and A and C are reduced: ``out[b, d]`` joins
``value(x[a, b, c, d])`` for all a and c, and ``finish`` makes the result of it. Contiguous runs (D = 1) are joined in
registers, at most ``RUN`` numbers in the type of the data. Otherwise each of the D columns has an accumulator in the
first-level cache, eight rows are joined to it at a time and at most ``ROWS`` in the type of the data; a few columns are
read as several rows side by side, until about ``LANES`` accumulators work. All beyond is joined in float64, blocks
pairwise.

A block is a part of one segment (C, D) or several small segments, and at most ``WIDTH`` columns. ``plan`` cuts by shape
alone, so bits do not depend on threads.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, exact_function, intrinsic, kernel, kernel_from
from funcnn.kernels.cpu.build.facts import Facts
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.bits import like, maximum
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import largest_in_row

RUN = 2048  # contiguous numbers in the type of the data: 32 for each lane of four 512-bit registers of float32
ROWS = 256  # of a block
WIDTH = 512  # columns of a block at most: eight rows of float32 fill half of a first-level cache
LANES = 64  # accumulators at least, where there are as many numbers
BLOCKS = 9  # where a plan says how many blocks a result has
CHUNK = 1 << 17  # numbers of a chunk at most, half of it at least; a power of two of them are dealt out evenly


@lru_cache(1024)
def plan(a: int, b: int, c: int, d: int) -> np.ndarray:
    """What the kernels read: A, B, C, D, rows side by side, full rows of a segment, rows of a block, into how many parts a
    segment is cut, segments of a block, blocks of a result, columns of a block, pieces of D, blocks of a chunk."""
    side = min(c, max(1, LANES // d)) if d > 1 else 1
    rows = c // side
    most = ROWS if d > 1 else ROWS * LANES
    cut, group = -(-rows // most), max(1, most // (rows + 1))
    pieces = -(-d // WIDTH)
    columns = d if pieces == 1 else -(-d // pieces // 16) * 16
    blocks = -(-a // group) * cut
    each = -((-blocks * pieces * b) >> (a * b * c * d // CHUNK).bit_length())
    return np.array([a, b, c, d, side, rows, most, cut, group, blocks, columns, pieces, each])


@intrinsic(twin=lambda number: np.empty(WIDTH, np.asarray(number).dtype))
def accumulators(typingctx: Any, number: Any) -> Any:
    """WIDTH numbers of the type of the given one, on the stack."""
    from llvmlite import ir
    from numba.core import cgutils, types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_data_type(number)
        block = cgutils.alloca_once(builder, ir.ArrayType(kind, WIDTH))
        block.align = 64
        return builder.bitcast(block, kind.as_pointer())

    return types.CPointer(number)(number), codegen


# ---- the template -----------------------------------------------------------------------------------------------------
def _run(q, count, total, m, how):
    for k in range(count):
        total = join(total, value(q[k], m, how))  # noqa: F821
    return total


def _runs(chunk, worker, x, centre, how, partial, out, plan):
    a, b, c, most, cut, group, blocks, each = (
        plan[0], plan[1], plan[2], plan[6], plan[7], plan[8], plan[9], plan[12]
    )  # fmt: skip
    first = like(value(x[0], 0.0, how), start)  # noqa: F821
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
                for at in range(0, length, RUN):
                    part = run(shift(p, at), min(RUN, length - at), first, m, how)  # noqa: F821
                    total = join(total, np.float64(part))  # noqa: F821
            if blocks == 1:
                result[j] = like(out[0], finish(total, how))  # noqa: F821
            else:
                share[t * b + j] = total
        place += end - begin


def _columns(chunk, worker, x, centre, how, partial, out, plan):
    a, b, c, d, side, rows, most = plan[0], plan[1], plan[2], plan[3], plan[4], plan[5], plan[6]
    cut, group, blocks, wide, pieces, each = plan[7], plan[8], plan[9], plan[10], plan[11], plan[12]
    first = like(value(x[0], 0.0, how), start)  # noqa: F821
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
                    e = join(join(value(p0[k], m, how), value(p1[k], m, how)), value(p2[k], m, how))  # noqa: F821
                    f = join(join(value(p3[k], m, how), value(p4[k], m, how)), value(p5[k], m, how))  # noqa: F821
                    g = join(join(value(p6[k], m, how), value(p7[k], m, how)), acc[k])  # noqa: F821
                    acc[k] = join(join(e, f), g)  # noqa: F821
            for r in range(8 * eights, end - begin + 1):
                p0 = shift(p, r * stride)
                for k in range(width if r < end - begin else spare):
                    acc[k] = join(acc[k], value(p0[k], middle[k], how))  # noqa: F821
        for k in range(columns):
            middle[k] = first
        for i in range(side):
            for k in range(columns):
                middle[k] = join(middle[k], np.float64(acc[i * columns + k]))  # noqa: F821
        if blocks == 1:
            q = pointer(out, j * d + left)
            for k in range(columns):
                q[k] = like(out[0], finish(middle[k], how))  # noqa: F821
        else:
            u = pointer(partial, (t * b + j) * d + left)
            for k in range(columns):
                u[k] = middle[k]


def _reduction(x, centre, how, partial, out, plan, threads):
    blocks, each = plan[9], plan[12]
    chunks = (blocks * plan[11] * plan[1] + each - 1) // each
    args = (x, centre, how, partial, out, plan)
    if plan[3] == 1:
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
            q[k] = like(out[0], finish(p[k], how))  # noqa: F821


def _facts(centred: bool) -> Facts:
    results = {"centre": lambda plan: int(plan[1] * plan[3])} if centred else {}
    return Facts(
        {
            "x": lambda plan: int(plan[:4].prod()),
            "out": lambda plan: int(plan[1] * plan[3]),
            "partial": lambda plan: int(plan[BLOCKS] * plan[1] * plan[3]) if plan[BLOCKS] > 1 else 0,
            **results,
        }
    )


def reduction(name, start, join, value, finish, centred=False, run=None):
    """The kernel ``(x, centre, how, partial, out, plan, threads)``, all arrays flat.

    centre: one float64 number for each of ``out``; how: a float64 for ``value`` and ``finish``; partial:
    ``blocks * out.size`` float64 numbers of scratch. run: joins contiguous numbers, ``(q, count, first, m, how)``.
    """
    run = run or kernel_from(_run, name + "_run", join=join, value=value)
    given = {"start": start, "join": join, "value": value, "finish": finish, "centred": centred, "run": run}
    runs = kernel_from(_runs, name + "_runs", **given)
    columns = kernel_from(_columns, name + "_columns", **given)
    return kernel_from(_reduction, name, _facts(centred), join=join, finish=finish, runs=runs, columns=columns)


# ---- its scalar functions -----------------------------------------------------------------------------------------------
@device_function
def plus(a, b):
    """a + b."""
    return a + b


@device_function
def times(a, b):
    """a b."""
    return a * b


@device_function
def itself(x, m, how):
    """x."""
    return x


@device_function
def deviation(x, m, how):
    """x - m, or its square where ``how`` is not 0, in float64."""
    off = np.float64(x) - m
    return off * (off if how else 1.0)


@device_function
def signed(x, m, how):
    """x times ``how``, 1 or -1."""
    return x * like(x, how)


@device_function
def whole(total, how):
    """The result as it is."""
    return total


@device_function
def divided(total, how):
    """The result over ``how``: 1, or the count for a mean."""
    return total / how


@device_function
def largest_run(q, count, first, m, how):
    """The maximum of contiguous numbers times ``how``."""
    return largest_in_row(q, count, like(first, how))


sums = reduction("sums", 0.0, plus, itself, divided)
products = reduction("products", 1.0, times, itself, whole)
deviations = reduction("deviations", 0.0, plus, deviation, whole, True)
largest = reduction("largest", -inf, maximum, signed, times, run=largest_run)  # of negated numbers: the smallest


@exact_function
def quotient(a, b):
    """a / b, not a times 1 / b."""
    return a / b


@kernel(touches={"out": lambda sums: sums.size})
def quotients(sums, by, out):
    """sums /= by, and out = sums in its own type; flat."""
    for i in range(sums.size):
        sums[i] = quotient(sums[i], by)
        out[i] = like(out[0], sums[i])
