"""Contiguous rows of softmax, log-softmax and their gradients, as ``softmax.py`` says, and the sums that others take of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, exact_function, intrinsic
from funcnn.kernels.cpu.vector.functions import exp_below, log
from funcnn.kernels.cpu.vector.instructions import pointer

SUM_ELEMENTS = 2048  # added in the type of the data; the sums of such pieces are joined in float64
GROUP_ROWS = 16  # whose logarithms are taken together: two vectors of float64
GROUP_ELEMENTS = 4096  # of such rows at most, which stay in the first-level cache


def _larger_twin(a: Any, b: Any) -> Any:
    return np.maximum(a, b)


@intrinsic(twin=_larger_twin)
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """Returns the larger, or NaN where one is: unlike a comparison, LLVM vectorises a loop that reduces by it."""

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
    """Returns x - top - rest in this order: first top + rest, which LLVM would make of it, loses the digits that top hides."""
    return (x - top) - rest


# ---- sums ------------------------------------------------------------------------------------------------------------
@device_function
def row_top(x, start, n):
    """Returns the largest of n elements, NaN if there is one."""
    p = pointer(x, start)
    top = x.dtype.type(-np.inf)
    for i in range(n):
        top = larger(top, p[i])
    return top


@device_function
def row_total(x, start, n, top):
    """Returns the sum of exp(x - top)."""
    total = 0.0
    for begin in range(0, n, SUM_ELEMENTS):
        p = pointer(x, start + begin)
        part = x.dtype.type(0)
        for i in range(min(SUM_ELEMENTS, n - begin)):
            part += exp_below(p[i] - top)
        total += part
    return total


@device_function
def row_dot(a, b, start, n):
    """Returns the sum of products."""
    total = 0.0
    for begin in range(0, n, SUM_ELEMENTS):
        p, q = pointer(a, start + begin), pointer(b, start + begin)
        part = a.dtype.type(0)
        for i in range(min(SUM_ELEMENTS, n - begin)):
            part += p[i] * q[i]
        total += part
    return total


@device_function
def row_sum(x, start, n):
    """Returns the sum."""
    total = 0.0
    for begin in range(0, n, SUM_ELEMENTS):
        p = pointer(x, start + begin)
        part = x.dtype.type(0)
        for i in range(min(SUM_ELEMENTS, n - begin)):
            part += p[i]
        total += part
    return total


# ---- passes ----------------------------------------------------------------------------------------------------------
@device_function
def log_softmax_rows(x, y, first, last, n, t, m):
    """Writes the log-softmax of some rows to y. t and m: scratch for GROUP_ROWS maxima and sums.

    A logarithm by itself takes as long as the exponentials of a short row; of several rows they are a loop over vectors.
    """
    together = min(GROUP_ROWS, max(1, GROUP_ELEMENTS // n))
    for row in range(first, last, together):
        count = min(together, last - row)
        for i in range(count):
            t[i] = row_top(x, (row + i) * n, n)
            m[i] = row_total(x, (row + i) * n, n, t[i])
        for i in range(count):
            m[i] = log(m[i])
        for i in range(count):
            p, q, top, rest = pointer(x, (row + i) * n), pointer(y, (row + i) * n), t[i], x.dtype.type(m[i])
            for k in range(n):
                q[k] = below(p[k], top, rest)


@device_function
def softmax_row(x, y, start, n):
    """Writes the softmax of a row to y."""
    kind = x.dtype.type
    p, q = pointer(x, start), pointer(y, start)
    top = row_top(x, start, n)
    for i in range(n):
        q[i] = exp_below(p[i] - top)
    scale = kind(1.0 / row_sum(y, start, n))
    for i in range(n):
        q[i] *= scale


@device_function
def softmax_row_grad(dy, y, dx, start, n, logarithm):
    """Writes the gradient of softmax, or of log-softmax, to dx."""
    kind = y.dtype.type
    g, p, q = pointer(dy, start), pointer(y, start), pointer(dx, start)
    if logarithm:
        total = kind(row_sum(dy, start, n))
        for i in range(n):
            q[i] = g[i] - exp_below(p[i]) * total
        return
    total = kind(row_dot(dy, y, start, n))
    for i in range(n):
        q[i] = p[i] * (g[i] - total)
