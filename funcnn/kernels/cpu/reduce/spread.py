"""The gradients of sums and extrema: an element for each result is written to all those that it was reduced from.

Arrays are (A, B, C, D) with A and C reduced, cut as ``runs.cuts_of`` says; every element is written once, chunk by chunk.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.reduce.runs import BLOCK_COLUMNS, A, B, C, D, accumulators
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import copy_row, fill_row

CHUNK_ELEMENTS = 1 << 15
COPY_ELEMENTS = 1 << 10  # that are copied at once, from the first-level cache


@kernel(touches={"y": lambda cuts: int(cuts[B] * cuts[D])})
def spread_over(y, x, cuts, threads):
    """Writes x[a, b, c, d] = y[b, d], every result to the elements that it was reduced from; both flat."""
    parallel_for(spread_chunk, (x.size + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS, threads, (y, x, cuts))


@device_function
def spread_chunk(chunk, worker, y, x, cuts):
    """Writes one chunk, segment after segment (C, D). Within one, rows of D are copied from what is written already: one row,
    two, four, up to ``COPY_ELEMENTS``."""
    b, c, d = cuts[B], cuts[C], cuts[D]
    at, last = chunk * CHUNK_ELEMENTS, min((chunk + 1) * CHUNK_ELEMENTS, x.size)
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
                more = min(done, count - done, max(d, COPY_ELEMENTS // d * d))
                copy_row(shift(p, done), p, more)
                done += more
        at = end
        segment += 1


@device_function
def tells(x, top):
    """Returns 1.0 for an element that is the extremum, NaN like NaN, else 0.0."""
    return 1.0 if x == top or x != x else 0.0


@kernel(
    touches={
        "x": lambda cuts: int(cuts[:4].prod()),
        "dx": lambda cuts: int(cuts[:4].prod()),
        "top": lambda cuts: int(cuts[B] * cuts[D]),
        "g": lambda cuts: int(cuts[B] * cuts[D]),
    }
)
def spread_extremum(x, top, g, dx, cuts, spoilt, threads):
    """Writes dx = g over how many elements equal the extremum ``top``, where x does, else 0; all flat, top and g like (B, D).

    spoilt: NaN wherever the extremum is NaN.
    """
    b, d = cuts[B], cuts[D]
    pieces = (d + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    each = max(1, CHUNK_ELEMENTS * pieces * b // x.size)
    parallel_for(extremum_chunk, (b * pieces + each - 1) // each, threads, (x, top, g, dx, cuts, spoilt, pieces, each))


@device_function
def extremum_chunk(chunk, worker, x, top, g, dx, cuts, spoilt, pieces, each):
    """Writes some results b, of some columns: all elements of one are counted, then written from the cache."""
    a, b, c, d = cuts[A], cuts[B], cuts[C], cuts[D]
    counts, shares = accumulators(np.float64(0)), accumulators(x[0])
    for item in range(chunk * each, min((chunk + 1) * each, b * pieces)):
        j, left = item // pieces, item % pieces * BLOCK_COLUMNS
        columns, t = min(BLOCK_COLUMNS, d - left), pointer(top, j * d + left)
        length, rows = (c, 1) if d == 1 else (columns, c)
        for k in range(columns):
            counts[k] = 0.0
        for i in range(a * rows):
            p = pointer(x, ((i // rows * b + j) * c + i % rows) * d + left)
            if d == 1:
                extremum, count = t[0], 0.0
                for k in range(length):
                    count += tells(p[k], extremum)
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
                extremum, one = t[0], shares[0]
                for k in range(length):
                    q[k] = like(one, tells(p[k], extremum)) * one
            else:
                for k in range(length):
                    q[k] = like(shares[k], tells(p[k], t[k])) * shares[k]
