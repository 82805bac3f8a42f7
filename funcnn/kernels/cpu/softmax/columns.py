"""Columns of softmax, log-softmax and their gradients: n rows of up to ``width`` elements go through each pass together.

x, y, dx and dy point at the first row of a block; ``step`` is the stride between rows. t and m point at an element for each
column: its maximum, in the type of the data, and its sum, in float64.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function
from funcnn.kernels.cpu.softmax.rows import below, larger
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.functions import exp_below, log
from funcnn.kernels.cpu.vector.instructions import shift


# ---- sums ------------------------------------------------------------------------------------------------------------
@device_function
def column_tops(p, step, n, width, t):
    """Writes the largest of each column to t."""
    for j in range(width):
        t[j] = like(t[j], -np.inf)
    for i in range(n):
        row = shift(p, i * step)
        for j in range(width):
            t[j] = larger(t[j], row[j])


@device_function
def add_rows(y, step, n, width, m):
    """Adds the sum of each column of n rows to m, four of them first in their own type."""
    fours = n // 4 * 4
    for i in range(0, fours, 4):
        e = shift(y, i * step)
        f, g, h = shift(e, step), shift(e, 2 * step), shift(e, 3 * step)
        for j in range(width):
            m[j] += np.float64((e[j] + f[j]) + (g[j] + h[j]))
    for i in range(fours, n):
        e = shift(y, i * step)
        for j in range(width):
            m[j] += np.float64(e[j])


@device_function
def column_totals(x, step, n, width, t, m, e, apart):
    """Writes the sum of exp(x - t) of each column to m.

    e: scratch for min(4, n) rows of stride ``apart``, for a loop of both types has vectors half as long.
    """
    for j in range(width):
        m[j] = 0.0
    for i in range(0, n, 4):
        rows = min(4, n - i)
        for k in range(rows):
            p, q = shift(x, (i + k) * step), shift(e, k * apart)
            for j in range(width):
                q[j] = exp_below(p[j] - t[j])
        add_rows(e, apart, rows, width, m)


@device_function
def column_exponentials(x, y, step, n, width, t, m):
    """Writes y = exp(x - t), and the sum of each column to m."""
    for j in range(width):
        m[j] = 0.0
    for i in range(0, n, 4):
        rows = min(4, n - i)
        for k in range(rows):
            p, q = shift(x, (i + k) * step), shift(y, (i + k) * step)
            for j in range(width):
                q[j] = exp_below(p[j] - t[j])
        add_rows(shift(y, i * step), step, rows, width, m)


# ---- passes ----------------------------------------------------------------------------------------------------------
@device_function
def softmax_columns(x, y, step, n, width, logarithm, t, m):
    """Writes the softmax of each column, or its logarithm, to y. t holds two elements for each column.

    The logarithm needs no exponential again, so they stay in the first rows of y: x and y together may not fit a cache.
    """
    rest = shift(t, width)
    column_tops(x, step, n, width, t)
    if logarithm:
        column_totals(x, step, n, width, t, m, y, step)
        for j in range(width):
            rest[j] = like(t[j], log(m[j]))
        for i in range(n):
            p, q = shift(x, i * step), shift(y, i * step)
            for j in range(width):
                q[j] = below(p[j], t[j], rest[j])
        return
    column_exponentials(x, y, step, n, width, t, m)
    for j in range(width):
        rest[j] = like(t[j], 1.0 / m[j])
    for i in range(n):
        q = shift(y, i * step)
        for j in range(width):
            q[j] *= rest[j]


@device_function
def softmax_columns_grad(dy, y, dx, step, n, width, logarithm, t, m):
    """Writes the gradient of either to dx, which is scratch for the products of dy and y, too."""
    for j in range(width):
        m[j] = 0.0
    if logarithm:
        add_rows(dy, step, n, width, m)
    else:
        for i in range(n):
            g, p, q = shift(dy, i * step), shift(y, i * step), shift(dx, i * step)
            for j in range(width):
                q[j] = g[j] * p[j]
        add_rows(dx, step, n, width, m)
    for j in range(width):
        t[j] = like(t[j], m[j])
    for i in range(n):
        g, p, q = shift(dy, i * step), shift(y, i * step), shift(dx, i * step)
        if logarithm:
            for j in range(width):
                q[j] = g[j] - exp_below(p[j]) * t[j]
        else:
            for j in range(width):
                q[j] = p[j] * (g[j] - t[j])


@device_function
def exponential_columns(x, dx, step, n, width, t, r, scale):
    """Writes dx = exp(x - t - r) * scale."""
    for i in range(n):
        p, q = shift(x, i * step), shift(dx, i * step)
        for j in range(width):
            q[j] = exp_below(below(p[j], t[j], r[j])) * scale[j]
