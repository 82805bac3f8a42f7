"""The way back of sums and extrema: a number for each result, spread over those that it was reduced from.

Arrays are (A, B, C, D) with A and C reduced, cut as ``reduce.plan`` says; every number is written once, chunk by chunk.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.reduce.runs import WIDTH, accumulators
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import copy_row, fill_row

SPREAD = 1 << 15  # numbers of a chunk
COPIED = 1 << 10  # numbers that are copied at once


@kernel(touches={"y": lambda plan: int(plan[1] * plan[3])})
def spread_over(y, x, plan, threads):
    """x[a, b, c, d] = y[b, d]: every result over the numbers that it was reduced from; both flat."""
    parallel_for(spread_chunk, (x.size + SPREAD - 1) // SPREAD, threads, (y, x, plan))


@device_function
def spread_chunk(chunk, worker, y, x, plan):
    """The numbers of one chunk, segment after segment (C, D). Within one, rows of D are copied from what is written already:
    one row, two, four, up to ``COPIED`` numbers."""
    b, c, d = plan[1], plan[2], plan[3]
    at, last = chunk * SPREAD, min((chunk + 1) * SPREAD, x.size)
    segment = at // (c * d)
    while at < last:
        end, source, p = min(last, (segment + 1) * c * d), pointer(y, segment % b * d), pointer(x, at)
        count = end - at
        if d == 1:
            fill_row(p, count, source[0])
        else:
            turn = at % d
            done = min(d - turn, count)
            copy_row(p, shift(source, turn), done)
            copy_row(shift(p, done), source, min(turn, count - done))
            done = min(d, count)
            while done < count:
                more = min(done, count - done, max(d, COPIED // d * d))
                copy_row(shift(p, done), p, more)
                done += more
        at = end
        segment += 1


@device_function
def tells(x, top):
    """1.0 where a number is the extremum, NaN like NaN, else 0.0."""
    return 1.0 if x == top or x != x else 0.0


@kernel(
    touches={
        "x": lambda plan: int(plan[:4].prod()),
        "dx": lambda plan: int(plan[:4].prod()),
        "top": lambda plan: int(plan[1] * plan[3]),
        "g": lambda plan: int(plan[1] * plan[3]),
    }
)
def spread_extremum(x, top, g, dx, plan, spoilt, threads):
    """dx = g over how many numbers equal the extremum ``top``, where x does, else 0; all flat, top and g like (B, D).

    spoilt: NaN wherever the extremum is NaN.
    """
    b, d = plan[1], plan[3]
    pieces = (d + WIDTH - 1) // WIDTH
    each = max(1, SPREAD * pieces * b // x.size)
    parallel_for(extremum_chunk, (b * pieces + each - 1) // each, threads, (x, top, g, dx, plan, spoilt, pieces, each))


@device_function
def extremum_chunk(chunk, worker, x, top, g, dx, plan, spoilt, pieces, each):
    """Some results b, of some columns: all numbers of one are counted, then written from the cache."""
    a, b, c, d = plan[0], plan[1], plan[2], plan[3]
    counts, shares = accumulators(np.float64(0)), accumulators(x[0])
    for item in range(chunk * each, min((chunk + 1) * each, b * pieces)):
        j, left = item // pieces, item % pieces * WIDTH
        columns, t = min(WIDTH, d - left), pointer(top, j * d + left)
        length, rows = (c, 1) if d == 1 else (columns, c)
        for k in range(columns):
            counts[k] = 0.0
        for i in range(a * rows):
            p = pointer(x, ((i // rows * b + j) * c + i % rows) * d + left)
            if d == 1:
                number, count = t[0], 0.0
                for k in range(length):
                    count += tells(p[k], number)
                counts[0] += count
            else:
                for k in range(length):
                    counts[k] += tells(p[k], t[k])
        share = pointer(g, j * d + left)
        for k in range(columns):
            lost = spoilt and t[k] != t[k]
            shares[k] = like(x[0], np.nan if lost else share[k] / counts[k])
        for i in range(a * rows):
            at = ((i // rows * b + j) * c + i % rows) * d + left
            p, q = pointer(x, at), pointer(dx, at)
            if d == 1:
                number, one = t[0], shares[0]
                for k in range(length):
                    q[k] = like(one, tells(p[k], number)) * one
            else:
                for k in range(length):
                    q[k] = like(shares[k], tells(p[k], t[k])) * shares[k]
