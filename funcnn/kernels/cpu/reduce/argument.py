"""Where the largest number stands along the middle axis of (O, N, I) arrays: the first of equals, or the first NaN.

A row (I = 1) is read for its maximum in whole vectors, then up to where that stands, ``BLOCK`` numbers at a time. Columns
go ``WIDTH`` at a time, a maximum and a place each in the first-level cache. Smallest numbers are the largest of negated ones.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.reduce.runs import WIDTH, accumulators
from funcnn.kernels.cpu.reduce.spread import tells
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import largest_in_row

BLOCK = 64  # numbers of a row that are compared at once
CHUNK = 1 << 15  # numbers of a chunk of rows, each counted as ``BLOCK`` more


@kernel(touches={"x": lambda out, n: out.size * n})
def argument(x, out, n, inner, sign, threads):
    """out[o, i] = the k of the largest x[o, k, i] * sign, sign being 1 or -1; both flat."""
    if inner == 1:
        group = (CHUNK + n - 1) // (n + BLOCK) + 1
        parallel_for(argument_rows, (out.size + group - 1) // group, threads, (x, out, n, group, sign))
    else:
        chunks = out.size // inner * ((inner + WIDTH - 1) // WIDTH)
        parallel_for(argument_columns, chunks, threads, (x, out, n, inner, sign))


@device_function
def argument_rows(chunk, worker, x, out, n, group, sign):
    """A group of contiguous rows."""
    places = pointer(out, 0)
    for r in range(chunk * group, min((chunk + 1) * group, out.size)):
        p, k = pointer(x, r * n), 0
        top = largest_in_row(p, n, x.dtype.type(sign)) * x.dtype.type(sign)
        while n - k > BLOCK:
            found = 0.0
            for i in range(BLOCK):
                found += tells(p[k + i], top)
            if found > 0:
                break
            k += BLOCK
        while tells(p[k], top) == 0.0:
            k += 1
        places[r] = k


@device_function
def argument_columns(chunk, worker, x, out, n, inner, sign):
    """Up to WIDTH columns of one O."""
    pieces = (inner + WIDTH - 1) // WIDTH
    left = chunk % pieces * WIDTH
    columns, factor = min(WIDTH, inner - left), x.dtype.type(sign)
    best, where = accumulators(x[0]), accumulators(np.int64(0))
    p = pointer(x, chunk // pieces * n * inner + left)
    for i in range(columns):
        best[i], where[i] = p[i] * factor, 0
    for k in range(1, n):
        p = shift(p, inner)
        for i in range(columns):
            number, old = p[i] * factor, best[i]
            take = number > old or (number != number and old == old)
            best[i] = number if take else old
            where[i] = k if take else where[i]
    places = pointer(out, chunk // pieces * inner + left)
    for i in range(columns):
        places[i] = where[i]
