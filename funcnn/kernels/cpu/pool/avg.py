"""Average pooling over three spatial dimensions of (M, D, H, W) images, M being batch times channels.

Windows are given by tables along D, H and W, one after another in an array: ``bounds`` (O + P + Q, 2) start and end of each
window in the input, ``covers`` (D + H + W, 2) the first and last-but-one window over each input pixel, and ``extents``
(O + P + Q) whose products are the divisors. The gradient gathers: a row of dx is the sum of the rows of dy over it, each
divided, and then each pixel sums the columns over it. So every array passes through memory once.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.pool.rows import (
    deliver,
    line_length,
    lines_under,
    margin_of,
    phase_length,
    slack,
    spread,
    tap_columns,
)
from funcnn.kernels.cpu.pool.taps import paired_totals, scale_row, totals, window_means
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row
from funcnn.kernels.cpu.vector.scratch import filled, intact, room
from funcnn.kernels.cpu.vector.streaming import to_line
from funcnn.kernels.cpu.vector.table_taps import weighted_taps

BLOCK = 4  # rows


# ---- windows of one size --------------------------------------------------------------------------------------------
@kernel(touches={"x": lambda x, y: x.size // max(len(x), 1) * len(y), "extents": lambda y: sum(y.shape[1:])})
def avg_pool(x, y, extents, size, stride, padding, rows, past, threads):
    """y = the sum of each window divided by its extents. ``rows`` output rows make a chunk; ``past``: y is written past
    the cache."""
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(avg_pool_rows, chunks, threads, (x, y, extents, size, stride, padding, rows, past))


@device_function
def avg_pool_rows(chunk, worker, x, y, extents, size, stride, padding, rows, past):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``avg_pool``: the rows under a window are summed, then columns.

    ``BLOCK`` rows are summed before the first is read again, so that no load waits for a store just made.
    """
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    more, zero = slack(pointer(x, 0)), x.dtype.type(0)
    margin = margin_of(pointer(x, 0), padding[2])
    apart = phase_length(pointer(x, 0), Q, W, size[2], stride[2], padding[2], 1)
    sums, ones = filled(BLOCK * stride[2] * apart + more, x.dtype, 0), filled(size[0] * size[1], x.dtype, 1)
    tables = room(size[0] * size[1] + size[2], np.int64)
    tap_columns(pointer(tables, size[0] * size[1]), size[2], stride[2], padding[2], 1, margin, apart)
    across, divisors = filled(Q + more, x.dtype, 1), filled(BLOCK, x.dtype, 1)
    for q in range(Q):
        across[q] = extents[O + P + q]
    first, last = chunk * rows, min((chunk + 1) * rows, M * O * P)
    line = room(line_length(pointer(x, 0), W, stride[2]), x.dtype)
    means, aligned = room(BLOCK * Q + more, x.dtype), to_line(pointer(sums, 0))
    for block in range(first, last, BLOCK):
        count = min(BLOCK, last - block)
        lines, columns = pointer(tables, 0), pointer(tables, size[0] * size[1])
        for u in range(count):
            m, plane_row = divmod(block + u, O * P)
            o, p = divmod(plane_row, P)
            taps = lines_under(lines, o, p, x, size, stride, padding, (1, 1, 1))
            divisors[u] = extents[o] * extents[O + p]
            image, target = pointer(x, m * D * H * W), pointer(sums, aligned + u * stride[2] * apart + margin)
            spread(image, lines, pointer(ones, 0), taps, W, stride[2], target, apart, zero, pointer(line, 0))
        for u in range(count):
            summed, out = pointer(sums, aligned + u * stride[2] * apart), pointer(means, u * Q)
            window_means(summed, columns, size[2], Q, divisors[u], pointer(across, 0), out)
        deliver(pointer(y, block * Q), pointer(means, 0), count * Q, past)
    intact(sums), intact(ones), intact(tables), intact(across), intact(divisors), intact(means), intact(line)


# ---- windows of any bounds ------------------------------------------------------------------------------------------
@kernel(
    touches={
        "x": lambda x, y: x.size // max(len(x), 1) * len(y),
        "extents": lambda y: sum(y.shape[1:]),
        "bounds": lambda y: 2 * sum(y.shape[1:]),
    }
)
def window_mean(x, y, bounds, extents, rows, threads):
    """y = the sum of each window divided by its extents: rows are summed first, then columns of the sum."""
    M, O, P, _ = y.shape
    parallel_for(window_mean_rows, (M * O * P + rows - 1) // rows, threads, (x, y, bounds, extents, rows))


@device_function
def window_mean_rows(chunk, worker, x, y, bounds, extents, rows):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``window_mean``."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    scratch = room(W, x.dtype)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        sums = pointer(scratch, 0)
        clear_row(sums, W)
        for d in range(bounds[o, 0], bounds[o, 1]):
            for h in range(bounds[O + p, 0], bounds[O + p, 1]):
                source = pointer(x, ((m * D + d) * H + h) * W)
                for w in range(W):
                    sums[w] += source[w]
        divisor = extents[o] * extents[O + p]
        out = pointer(y, row * Q)
        for q in range(Q):
            value = x.dtype.type(0)
            for w in range(bounds[O + P + q, 0], bounds[O + P + q, 1]):
                value += sums[w]
            out[q] = value / (divisor * extents[O + P + q])
    intact(scratch)


@kernel(touches={"y": lambda x: len(x)})
def mean_rows(x, y, rows, threads):
    """y[m] = the mean of x[m]: pooling to one pixel. ``rows`` rows of x (M, n) make a chunk."""
    parallel_for(mean_of_rows, (x.shape[0] + rows - 1) // rows, threads, (x, y, rows))


@device_function
def mean_of_rows(chunk, worker, x, y, rows):
    """The rows of a chunk of ``mean_rows``."""
    M, n = x.shape
    for m in range(chunk * rows, min((chunk + 1) * rows, M)):
        source = pointer(x, m * n)
        value = x.dtype.type(0)
        for w in range(n):
            value += source[w]
        y[m] = value / n


@kernel(touches={"dy": lambda dx: len(dx)})
def spread_rows(dy, dx, rows, threads):
    """dx[m] = dy[m] / n in all of its n numbers: the gradient of ``mean_rows``."""
    parallel_for(spread_over_rows, (dx.shape[0] + rows - 1) // rows, threads, (dy, dx, rows))


@device_function
def spread_over_rows(chunk, worker, dy, dx, rows):
    """The rows of a chunk of ``spread_rows``."""
    M, n = dx.shape
    for m in range(chunk * rows, min((chunk + 1) * rows, M)):
        out = pointer(dx, m * n)
        share = dx.dtype.type(dy[m] / n)
        for w in range(n):
            out[w] = share


# ---- gradient -------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "dy": lambda dy, dx: dy.size // max(len(dy), 1) * len(dx),
        "covers": lambda dx: 2 * sum(dx.shape[1:]),
        "extents": lambda dy: sum(dy.shape[1:]),
    }
)
def avg_pool_grad(dy, dx, covers, extents, columns, size, stride, padding, rows, past, threads):
    """dx = the transpose of the pooling: each dy is shared out over its window. ``rows`` rows of dx make a chunk.

    stride: 1 or 2 (then size > 1) where windows have one size, ``size``, along W; else 0, and ``columns`` (index, weight,
    taps, pitch) is a table (``table_taps.py``) of the windows over each column, 1 by the extent being the weight.
    """
    M, D, H, _ = dx.shape
    chunks = (M * D * H + rows - 1) // rows
    where = (dy, dx, covers, extents, columns, size, stride, padding, rows, past)
    parallel_for(avg_pool_grad_rows, chunks, threads, where)


@device_function
def avg_pool_grad_rows(chunk, worker, dy, dx, covers, extents, columns, size, stride, padding, rows, past):
    """Rows [chunk * rows, (chunk + 1) * rows) of dx, counted over images, depths and heights; ``BLOCK`` at a time."""
    M, O, P, Q = dy.shape
    _, D, H, W = dx.shape
    more, zero = slack(pointer(dx, 0)), dx.dtype.type(0)
    margin = margin_of(pointer(dx, 0), size)
    apart = margin + margin_of(pointer(dx, 0), max(Q, W + padding)) + 2 * more
    sums, shares = filled(BLOCK * apart + more, dx.dtype, 0), filled(O + P + Q + more, dx.dtype, 1)
    for q in range(O + P + Q):
        shares[q] = 1 / extents[q]
    tables, weights = room(O * P + 2 * size + BLOCK, np.int64), room(O * P, dx.dtype)
    evens = column_offsets(pointer(tables, O * P), size, stride, padding, margin)
    first, last = chunk * rows, min((chunk + 1) * rows, M * D * H)
    slopes, aligned = room(BLOCK * W + 2 * more, dx.dtype), to_line(pointer(sums, 0))
    for block in range(first, last, BLOCK):
        count = min(BLOCK, last - block)
        lines, offsets, again = pointer(tables, 0), pointer(tables, O * P), pointer(tables, O * P + 2 * size)
        deep, high = pointer(covers, 0), pointer(covers, 2 * D)
        for u in range(count):
            m, plane_row = divmod(block + u, D * H)
            d, h = divmod(plane_row, H)
            again[u] = u > 0 and h > 0 and high[2 * h] == high[2 * h - 2] and high[2 * h + 1] == high[2 * h - 1]
            if again[u]:
                continue
            taps, share = 0, pointer(shares, 0)
            for o in range(deep[2 * d], deep[2 * d + 1]):
                for p in range(high[2 * h], high[2 * h + 1]):
                    lines[taps], weights[taps] = (o * P + p) * Q, share[o] * share[O + p]
                    taps += 1
            summed = pointer(sums, aligned + u * apart + margin)
            if taps == 0:
                clear_row(summed, Q)
            else:
                spread(pointer(dy, m * O * P * Q), lines, pointer(weights, 0), taps, Q, 1, summed, 0, zero, summed)
                if stride > 0:
                    scale_row(summed, pointer(shares, O + P), Q)
        for u in range(count):
            source, out = pointer(sums, aligned + u * apart), pointer(slopes, u * W)
            if again[u]:
                copy_row(out, pointer(slopes, (u - 1) * W), W)
            elif stride == 1:
                totals(source, offsets, size, W, out)
            elif stride == 2:
                paired_totals(source, offsets, evens, shift(offsets, evens), size - evens, (W + 1) // 2, out)
            else:
                over, weight = pointer(columns[0], 0), pointer(columns[1], 0)
                weighted_taps(shift(source, margin), over, weight, columns[2], columns[3], W, out)
        deliver(pointer(dx, block * W), pointer(slopes, 0), count * W, past)
    intact(sums), intact(shares), intact(tables), intact(weights), intact(slopes)


@device_function
def column_offsets(offsets, size, stride, padding, margin):
    """Where the columns over pixel w = stride * u lie from u on, in the row of sums with its margin; then those over
    stride * u + 1. Returns how many are the first."""
    taps = 0
    evens = 0
    for e in range(stride):
        for j in range(size):
            if (e + padding - j) % stride == 0:
                offsets[taps] = margin + (e + padding - j) // stride
                taps += 1
        if e == 0:
            evens = taps
    return evens
