"""Where the largest element is along the middle axis of (O, N, I) arrays: the first of equals, or the first NaN.

A row (I = 1) is read in whole vectors for its maximum, then from its beginning to where that is. Columns go
``BLOCK_COLUMNS`` at a time, each with a maximum and an index in the first-level cache. The smallest elements are the largest of
negated ones.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.reduce.runs import BLOCK_COLUMNS, accumulators
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import largest_in_row
from funcnn.kernels.cpu.vector.search import first_in_row

ROW_ELEMENTS = 64  # that cost as much as a row does beside its elements
CHUNK_ELEMENTS = 1 << 15  # of a chunk of rows, ``ROW_ELEMENTS`` more counted for each row


@kernel(touches={"x": lambda out, n: out.size * n})
def argument(x, out, n, inner, sign, threads):
    """Writes out[o, i] = the k of the largest x[o, k, i] * sign, sign being 1 or -1; both flat."""
    if inner == 1:
        group = (CHUNK_ELEMENTS + n - 1) // (n + ROW_ELEMENTS) + 1
        parallel_for(argument_rows, (out.size + group - 1) // group, threads, (x, out, n, group, sign))
    else:
        chunks = out.size // inner * ((inner + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS)
        parallel_for(argument_columns, chunks, threads, (x, out, n, inner, sign))


@device_function
def argument_rows(chunk, worker, x, out, n, group, sign):
    """Finds the indices of a group of contiguous rows."""
    indices, factor = pointer(out, 0), x.dtype.type(sign)
    for r in range(chunk * group, min((chunk + 1) * group, out.size)):
        p = pointer(x, r * n)
        indices[r] = first_in_row(p, n, largest_in_row(p, n, factor) * factor)


@device_function
def argument_columns(chunk, worker, x, out, n, inner, sign):
    """Finds the indices of up to BLOCK_COLUMNS columns of one O."""
    pieces = (inner + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    left = chunk % pieces * BLOCK_COLUMNS
    columns, factor = min(BLOCK_COLUMNS, inner - left), x.dtype.type(sign)
    best, where = accumulators(x[0]), accumulators(np.int64(0))
    p = pointer(x, chunk // pieces * n * inner + left)
    for i in range(columns):
        best[i], where[i] = p[i] * factor, 0
    for k in range(1, n):
        p = shift(p, inner)
        for i in range(columns):
            element, old = p[i] * factor, best[i]
            take = element > old or (element != element and old == old)
            best[i] = element if take else old
            where[i] = k if take else where[i]
    indices = pointer(out, chunk // pieces * inner + left)
    for i in range(columns):
        indices[i] = where[i]
