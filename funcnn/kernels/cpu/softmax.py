"""Softmax and log-softmax along the middle axis of (O, N, I) arrays, with their gradients.

Three passes over a row of N: its maximum, the exponentials below it and their sum, the result. Taking the maximum out
keeps exponentials at most 1. Along the last axis (I = 1) a row is contiguous and sums run in vectors of the data's type over
at most 2048 numbers, in float64 across; else blocks of up to ``width`` columns go through the passes together, so that
every loop has unit stride, and their sums are float64. One exponential a number, 1 read and 1 write: a row stays in the cache.

A row of minus infinities, and one with plus infinity or NaN, gives NaN, as in PyTorch. Empty rows are left alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.compile import device_function, exact_function, intrinsic, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.vector import pointer
from funcnn.kernels.cpu.vmath import exp, log

PIECE = 2048


def _larger_twin(a: Any, b: Any) -> Any:
    return np.maximum(a, b)


@intrinsic(twin=_larger_twin)
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger number, or NaN where one is: unlike a comparison, LLVM vectorises a loop that reduces by it."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        from llvmlite import ir
        from numba.core import cgutils

        kind = values[0].type
        name = f"llvm.maximum.f{a.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 2), name), values
        )

    return a(a, a), codegen


@exact_function
def below(x, top, rest):
    """x - top - rest in this order: first top + rest, which LLVM would make of it, loses the digits that top hides."""
    return (x - top) - rest


# ---- rows -----------------------------------------------------------------------------------------------------------
@device_function
def row_top(x, start, n):
    """The largest of n numbers, NaN if there is one."""
    p = pointer(x, start)
    top = x.dtype.type(-np.inf)
    for i in range(n):
        top = larger(top, p[i])
    return top


@device_function
def row_total(x, start, n, top):
    """The sum of exp(x - top)."""
    total = 0.0
    for begin in range(0, n, PIECE):
        p = pointer(x, start + begin)
        part = x.dtype.type(0)
        for i in range(min(PIECE, n - begin)):
            part += exp(p[i] - top)
        total += part
    return total


@device_function
def row_dot(a, b, start, n):
    """The sum of products."""
    total = 0.0
    for begin in range(0, n, PIECE):
        p, q = pointer(a, start + begin), pointer(b, start + begin)
        part = a.dtype.type(0)
        for i in range(min(PIECE, n - begin)):
            part += p[i] * q[i]
        total += part
    return total


@device_function
def row_sum(x, start, n):
    """The sum."""
    total = 0.0
    for begin in range(0, n, PIECE):
        p = pointer(x, start + begin)
        part = x.dtype.type(0)
        for i in range(min(PIECE, n - begin)):
            part += p[i]
        total += part
    return total


@device_function
def _softmax_row(x, y, start, n, logarithm):
    kind = x.dtype.type
    p, q = pointer(x, start), pointer(y, start)
    top = row_top(x, start, n)
    if logarithm:
        shift = kind(np.log(row_total(x, start, n, top)))
        for i in range(n):
            q[i] = below(p[i], top, shift)
        return
    for i in range(n):
        q[i] = exp(p[i] - top)
    scale = kind(1.0 / row_sum(y, start, n))
    for i in range(n):
        q[i] *= scale


@device_function
def _softmax_row_grad(dy, y, dx, start, n, logarithm):
    kind = y.dtype.type
    g, p, q = pointer(dy, start), pointer(y, start), pointer(dx, start)
    if logarithm:
        total = kind(row_sum(dy, start, n))
        for i in range(n):
            q[i] = g[i] - exp(p[i]) * total
        return
    total = kind(row_dot(dy, y, start, n))
    for i in range(n):
        q[i] = p[i] * (g[i] - total)


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
    for i in range(n):
        p = pointer(x, start + i * step)
        for j in range(width):
            m[j] += np.float64(exp(p[j] - t[j]))


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
    for j in range(width):
        m[j] = 0.0
    for i in range(n):
        p, q = pointer(x, start + i * step), pointer(y, start + i * step)
        for j in range(width):
            q[j] = exp(p[j] - t[j])
        for j in range(width):
            m[j] += np.float64(q[j])
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
            _softmax_row(x, y, start, x.shape[1], logarithm)
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
            _softmax_row_grad(dy, y, dx, start, y.shape[1], logarithm)
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
