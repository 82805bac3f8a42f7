"""Running sums, products and affine recurrences along one axis of a contiguous array (OUTER, N, INNER), forwards or backwards.

The accumulator is float64. A running sum waits for each addition, so contiguous rows (INNER = 1) go four at a time, and
columns up to ``BLOCK_COLUMNS`` at a time with an accumulator each in the first-level cache. Every element is read and written once;
the order of operations is the plain one, whatever the threads.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel, kernel_from
from funcnn.kernels.cpu.build.facts import Facts
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.reduce.functions import plus, times
from funcnn.kernels.cpu.reduce.runs import BLOCK_COLUMNS, accumulators
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.instructions import pointer, shift

CHUNK_ELEMENTS = 1 << 16  # of a chunk of rows at least


def _running(x, out, n, inner, backwards, threads):
    """Writes out[o, k, i], which joins x[o, :k + 1, i], or x[o, k:, i] where ``backwards``; arrays flat."""
    first, step = (n - 1, -1) if backwards else (0, 1)
    if inner == 1:
        group = (CHUNK_ELEMENTS + n - 1) // n
        parallel_for(rows, (x.size // n + group - 1) // group, threads, (x, out, n, group, first, step))  # noqa: F821
    else:
        chunks = x.size // (n * inner) * ((inner + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS)
        parallel_for(columns, chunks, threads, (x, out, n, inner, first, step))  # noqa: F821


def _rows(chunk, worker, x, out, n, group, first, step):
    """Runs over a group of contiguous rows, four at a time; beyond the last row the last one again."""
    last = min((chunk + 1) * group, x.size // n) - 1
    for r in range(chunk * group, last + 1, 4):
        r1, r2, r3 = min(r + 1, last), min(r + 2, last), min(r + 3, last)
        p0, p1, p2, p3 = pointer(x, r * n), pointer(x, r1 * n), pointer(x, r2 * n), pointer(x, r3 * n)
        q0, q1, q2, q3 = pointer(out, r * n), pointer(out, r1 * n), pointer(out, r2 * n), pointer(out, r3 * n)
        t0 = t1 = t2 = t3 = np.float64(start)  # noqa: F821
        for i in range(n):
            k = first + i * step
            t0, t1 = join(t0, np.float64(p0[k])), join(t1, np.float64(p1[k]))  # noqa: F821
            t2, t3 = join(t2, np.float64(p2[k])), join(t3, np.float64(p3[k]))  # noqa: F821
            q0[k], q1[k], q2[k], q3[k] = like(out[0], t0), like(out[0], t1), like(out[0], t2), like(out[0], t3)


def _columns(chunk, worker, x, out, n, inner, first, step):
    """Runs over up to BLOCK_COLUMNS columns of one OUTER."""
    pieces = (inner + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    left = chunk % pieces * BLOCK_COLUMNS
    columns = min(BLOCK_COLUMNS, inner - left)
    totals = accumulators(np.float64(0))
    for i in range(columns):
        totals[i] = start  # noqa: F821
    for j in range(n):
        offset = (chunk // pieces * n + first + j * step) * inner + left
        p, q = pointer(x, offset), pointer(out, offset)
        for i in range(columns):
            totals[i] = join(totals[i], np.float64(p[i]))  # noqa: F821
            q[i] = like(out[0], totals[i])


def running(name, start, join):
    """Makes the kernel ``(x, out, n, inner, backwards, threads)`` of ``join(a, b)`` and of ``start``, which changes nothing."""
    given = {"start": start, "join": join}
    rows, columns = kernel_from(_rows, name + "_rows", **given), kernel_from(_columns, name + "_columns", **given)
    return kernel_from(_running, name, Facts({"out": lambda x: x.size}), rows=rows, columns=columns)


running_sum, running_product = running("running_sum", 0.0, plus), running("running_product", 1.0, times)


# ---- the affine recurrence ----------------------------------------------------------------------------------------------
@kernel(touches={"a": lambda b: b.size, "out": lambda b: b.size})
def affine_scan(a, b, out, n, inner, backwards, threads):
    """Writes out[o, k, i] = b[o, k, i] + a[o, k, i] out[o, k - 1, i], or, ``backwards``, b[o, k] + a[o, k + 1] out[o, k + 1]; flat.

    The first step, or the last, is that of b alone.
    """
    if inner == 1:
        group = (CHUNK_ELEMENTS + n - 1) // n
        parallel_for(affine_rows, (b.size // n + group - 1) // group, threads, (a, b, out, n, group, backwards))
    else:
        chunks = b.size // (n * inner) * ((inner + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS)
        parallel_for(affine_columns, chunks, threads, (a, b, out, n, inner, backwards))


@device_function
def affine_rows(chunk, worker, a, b, out, n, group, backwards):
    """Runs over a group of contiguous rows."""
    first, step = (n - 1, -1) if backwards else (0, 1)
    for r in range(chunk * group, min((chunk + 1) * group, b.size // n)):
        p, q, s = pointer(a, r * n + backwards), pointer(b, r * n), pointer(out, r * n)
        total = np.float64(q[first])
        s[first] = q[first]
        for i in range(1, n):
            k = first + i * step
            total = np.float64(q[k]) + np.float64(p[k]) * total
            s[k] = like(out[0], total)


@device_function
def affine_columns(chunk, worker, a, b, out, n, inner, backwards):
    """Runs over up to BLOCK_COLUMNS columns of one OUTER."""
    pieces = (inner + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    left = chunk % pieces * BLOCK_COLUMNS
    columns = min(BLOCK_COLUMNS, inner - left)
    totals = accumulators(np.float64(0))
    first, step = (n - 1, -1) if backwards else (0, 1)
    offset = (chunk // pieces * n + first) * inner + left
    q, s = pointer(b, offset), pointer(out, offset)
    for i in range(columns):
        totals[i] = np.float64(q[i])
        s[i] = q[i]
    for j in range(1, n):
        offset += step * inner
        p, q, s = shift(pointer(a, offset), inner if backwards else 0), pointer(b, offset), pointer(out, offset)
        for i in range(columns):
            totals[i] = np.float64(q[i]) + np.float64(p[i]) * totals[i]
            s[i] = like(out[0], totals[i])
