"""Softmax and log-softmax along the middle axis of (O, N, I) arrays, with their gradients.

Three passes over a row of N: its maximum, the exponentials below it and their sum, the result. Taking the maximum out
keeps exponentials at most 1. Along the last axis (I = 1) a row is contiguous and sums run in vectors of the data's type over
at most 2048 numbers, in float64 across; else blocks of up to ``width`` columns go through the passes together, so that
every loop has unit stride, and four rows at a time are added to sums in float64. One exponential a number, 1 read and 1
write: a row stays in the cache.

A row of minus infinities, and one with plus infinity or NaN, gives NaN, as in PyTorch. Empty rows are left alone.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.softmax.rows import below, larger, softmax_row, softmax_row_grad
from funcnn.kernels.cpu.vector.functions import exp, log
from funcnn.kernels.cpu.vector.instructions import pointer, shift


# ---- blocks of columns: t and m point at a value for each ------------------------------------------------------------------
@device_function
def column_tops(x, start, step, n, width, t):
    """The largest of each column."""
    for j in range(width):
        t[j] = x.dtype.type(-np.inf)
    for i in range(n):
        p = pointer(x, start + i * step)
        for j in range(width):
            t[j] = larger(t[j], p[j])


@device_function
def column_totals(x, start, step, n, width, t, m):
    """The sum of exp(x - t) of each column."""
    for j in range(width):
        m[j] = 0.0
    fours = n // 4 * 4
    for i in range(0, fours, 4):
        p = pointer(x, start + i * step)
        q, r, s = shift(p, step), shift(p, 2 * step), shift(p, 3 * step)
        for j in range(width):
            u = t[j]
            m[j] += np.float64((exp(p[j] - u) + exp(q[j] - u)) + (exp(r[j] - u) + exp(s[j] - u)))
    for i in range(fours, n):
        p = pointer(x, start + i * step)
        for j in range(width):
            m[j] += np.float64(exp(p[j] - t[j]))


@device_function
def column_exponentials(x, y, start, step, n, width, t, m):
    """y = exp(x - t), and the sum of each column."""
    for j in range(width):
        m[j] = 0.0
    for i in range(n):
        p, q = pointer(x, start + i * step), pointer(y, start + i * step)
        for j in range(width):
            q[j] = exp(p[j] - t[j])
        if i % 4 == 3:
            e = pointer(y, start + (i - 3) * step)
            f, g = shift(e, step), shift(e, 2 * step)
            for j in range(width):
                m[j] += np.float64((e[j] + f[j]) + (g[j] + q[j]))
    for i in range(n // 4 * 4, n):
        q = pointer(y, start + i * step)
        for j in range(width):
            m[j] += np.float64(q[j])


@device_function
def _softmax_columns(x, y, start, width, logarithm, t, m):
    kind, n, step = x.dtype.type, x.shape[1], x.shape[2]
    column_tops(x, start, step, n, width, t)
    if logarithm:
        column_totals(x, start, step, n, width, t, m)
        for j in range(width):
            m[j] = log(m[j])
        for i in range(n):
            p, q = pointer(x, start + i * step), pointer(y, start + i * step)
            for j in range(width):
                q[j] = below(p[j], t[j], kind(m[j]))
        return
    column_exponentials(x, y, start, step, n, width, t, m)
    for j in range(width):
        t[j] = kind(1.0 / m[j])
    for i in range(n):
        q = pointer(y, start + i * step)
        for j in range(width):
            q[j] *= t[j]


@device_function
def _softmax_columns_grad(dy, y, dx, start, width, logarithm, m):
    kind, n, step = y.dtype.type, y.shape[1], y.shape[2]
    for j in range(width):
        m[j] = 0.0
    for i in range(n):
        g, p = pointer(dy, start + i * step), pointer(y, start + i * step)
        if logarithm:
            for j in range(width):
                m[j] += np.float64(g[j])
        else:
            for j in range(width):
                m[j] += np.float64(g[j] * p[j])
    for i in range(n):
        g, p, q = pointer(dy, start + i * step), pointer(y, start + i * step), pointer(dx, start + i * step)
        if logarithm:
            for j in range(width):
                q[j] = g[j] - exp(p[j]) * kind(m[j])
        else:
            for j in range(width):
                q[j] = p[j] * (g[j] - kind(m[j]))


# ---- chunks: cut = (rows or blocks of columns in a chunk, columns in a block) -----------------------------------------------
@device_function
def place(x, unit, cut):
    """Where a unit begins, and its columns."""
    blocks = (x.shape[2] + cut[1] - 1) // cut[1]
    column = unit % blocks * cut[1]
    return unit // blocks * x.shape[1] * x.shape[2] + column, min(cut[1], x.shape[2] - column)


@device_function
def units(x, cut):
    """Rows, or blocks of columns."""
    return x.shape[0] * ((x.shape[2] + cut[1] - 1) // cut[1])


@device_function
def _softmax(chunk, worker, x, y, logarithm, tops, totals, cut):
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], units(x, cut))):
        start, width = place(x, unit, cut)
        if x.shape[2] == 1:
            softmax_row(x, y, start, x.shape[1], logarithm)
        else:
            t, m = pointer(tops, worker * cut[1]), pointer(totals, worker * cut[1])
            _softmax_columns(x, y, start, width, logarithm, t, m)


@kernel(
    touches={
        "y": lambda x: x.size,
        "tops": lambda x, cut, threads: threads * cut[1] if x.shape[2] > 1 else 0,
        "totals": lambda x, cut, threads: threads * cut[1] if x.shape[2] > 1 else 0,
    }
)
def softmax_forward(x, y, logarithm, tops, totals, cut, threads):
    """y = exp(x - max) / sum(exp(x - max)) along axis 1, or its logarithm. tops, totals (threads * width): scratch."""
    chunks = (units(x, cut) + cut[0] - 1) // cut[0]
    parallel_for(_softmax, chunks, threads, (x, y, logarithm, tops, totals, cut))


@device_function
def _softmax_grad(chunk, worker, dy, y, dx, logarithm, totals, cut):
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], units(y, cut))):
        start, width = place(y, unit, cut)
        if y.shape[2] == 1:
            softmax_row_grad(dy, y, dx, start, y.shape[1], logarithm)
        else:
            _softmax_columns_grad(dy, y, dx, start, width, logarithm, pointer(totals, worker * cut[1]))


@kernel(
    touches={
        "dy": lambda y: y.size,
        "dx": lambda y: y.size,
        "totals": lambda y, cut, threads: threads * cut[1] if y.shape[2] > 1 else 0,
    }
)
def softmax_grad(dy, y, dx, logarithm, totals, cut, threads):
    """dx = y * (dy - sum(dy * y)), or for the logarithm dx = dy - exp(y) * sum(dy)."""
    chunks = (units(y, cut) + cut[0] - 1) // cut[0]
    parallel_for(_softmax_grad, chunks, threads, (dy, y, dx, logarithm, totals, cut))
