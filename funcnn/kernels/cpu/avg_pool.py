"""Average pooling over three spatial dimensions of (M, D, H, W) images, M being batch times channels.

Windows are given by tables along D, H and W, one after another in an array: ``bounds`` (O + P + Q, 2) start and end of each
window in the input, ``covers`` (D + H + W, 2) the first and last-but-one window over each input pixel, and ``extents``
(O + P + Q) whose products are the divisors. The gradient gathers: a row of dx is the sum of the rows of dy over it, each
divided, and then each pixel sums the columns over it. So every array passes through memory once.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.lanes import (
    FEW,
    LANES,
    mean,
    mean_few,
    mean_few_of_even,
    mean_of_even,
    total,
    total_few,
    total_pairs,
    total_pairs_few,
)
from funcnn.kernels.cpu.max_pool import tap_offsets, whole_windows
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.vector import pointer, shift


# ---- windows of one size --------------------------------------------------------------------------------------------
@kernel
def avg_pool(x, y, extents, size, stride, padding, rows, threads):
    """y = the sum of each window divided by its extents. ``rows`` output rows make a chunk."""
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(avg_pool_rows, chunks, threads, (x, y, extents, size, stride, padding, rows))


@device_function
def avg_pool_rows(chunk, worker, x, y, extents, size, stride, padding, rows):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``avg_pool``, counted over images, depths and heights."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    left, right = whole_windows(Q, W, size[2], stride[2], padding[2], 1)
    table = np.empty(size[0] * size[1] * size[2], np.int64)
    offsets = pointer(table, 0)
    zero = x.dtype.type(0)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        image, out = pointer(x, m * D * H * W), pointer(y, row * Q)
        taps = tap_offsets(offsets, o, p, D, H, W, size, stride, padding, (1, 1, 1))
        divisor = extents[o] * extents[O + p]
        across = pointer(extents, O + P)
        for q in range(left):
            mean_at(image, offsets, taps, q, W, size[2], stride[2], padding[2], divisor * across[q], zero, out)
        if right > left:
            mean_in_row(image, offsets, taps, left, right, stride[2], divisor * across[left], out)
        for q in range(right, Q):
            mean_at(image, offsets, taps, q, W, size[2], stride[2], padding[2], divisor * across[q], zero, out)


@device_function
def mean_at(image, offsets, taps, q, W, size, stride, padding, divisor, zero, out):
    """One output, whose window may run over the left and right edges."""
    column = q * stride
    value = zero
    j = 0
    for t in range(taps):
        w = column - padding + j
        j = j + 1 if j + 1 < size else 0
        if w >= 0 and w < W:
            value += image[offsets[t] + column]
    out[q] = value / divisor


@device_function
def mean_in_row(image, offsets, taps, left, right, step, divisor, out):
    """Outputs [left, right), at least ``FEW``, in blocks; the last one overlaps its neighbour."""
    lanes = LANES if right - left >= LANES else FEW
    for block in range((right - left + lanes - 1) // lanes):
        q = min(left + block * lanes, right - lanes)
        if lanes == LANES:
            if step == 1:
                mean(image, offsets, taps, q, divisor, shift(out, q))
            else:
                mean_of_even(image, offsets, taps, q, divisor, shift(out, q))
        elif step == 1:
            mean_few(image, offsets, taps, q, divisor, shift(out, q))
        else:
            mean_few_of_even(image, offsets, taps, q, divisor, shift(out, q))


# ---- windows of any bounds ------------------------------------------------------------------------------------------
@kernel
def window_mean(x, y, bounds, extents, rows, threads):
    """y = the sum of each window divided by its extents: rows are summed first, then columns of the sum."""
    M, O, P, _ = y.shape
    parallel_for(window_mean_rows, (M * O * P + rows - 1) // rows, threads, (x, y, bounds, extents, rows))


@device_function
def window_mean_rows(chunk, worker, x, y, bounds, extents, rows):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``window_mean``."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    scratch = np.empty(W, x.dtype)
    sums = pointer(scratch, 0)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        for w in range(W):
            sums[w] = 0
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


@kernel
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


@kernel
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
@kernel
def avg_pool_grad(dy, dx, covers, extents, size, stride, padding, rows, threads):
    """dx = the transpose of the pooling: each dy is shared out over its window. ``rows`` rows of dx make a chunk.

    stride: 1 or 2 (then size > 1) where windows have one size, ``size``, along W; 0 where ``covers`` says all.
    """
    M, D, H, _ = dx.shape
    chunks = (M * D * H + rows - 1) // rows
    parallel_for(avg_pool_grad_rows, chunks, threads, (dy, dx, covers, extents, size, stride, padding, rows))


@device_function
def avg_pool_grad_rows(chunk, worker, dy, dx, covers, extents, size, stride, padding, rows):
    """Rows [chunk * rows, (chunk + 1) * rows) of dx, counted over images, depths and heights."""
    M, O, P, Q = dy.shape
    _, D, H, W = dx.shape
    margin = size
    scratch = np.zeros(margin + max(Q, W + padding) + LANES, dx.dtype)  # dy summed over rows, zeros around it
    shares = np.empty(Q, dx.dtype)
    for q in range(Q):
        shares[q] = 1 / extents[O + P + q]
    table = np.empty(2 * size, np.int64)
    offsets = pointer(table, 0)
    evens = column_offsets(offsets, size, stride, padding, margin)
    sums, share, over = pointer(scratch, margin), pointer(shares, 0), pointer(covers, 2 * (D + H))
    for row in range(chunk * rows, min((chunk + 1) * rows, M * D * H)):
        m, plane_row = divmod(row, D * H)
        d, h = divmod(plane_row, H)
        out = pointer(dx, row * W)
        if row > chunk * rows and h > 0 and same_cover(covers, D + h):
            before = pointer(dx, (row - 1) * W)
            for w in range(W):
                out[w] = before[w]
            continue
        for q in range(Q):
            sums[q] = 0
        for o in range(covers[d, 0], covers[d, 1]):
            for p in range(covers[D + h, 0], covers[D + h, 1]):
                source = pointer(dy, ((m * O + o) * P + p) * Q)
                scale = dx.dtype.type(1 / (extents[o] * extents[O + p]))
                for q in range(Q):
                    sums[q] += source[q] * (scale * share[q])
        done = 0
        if stride > 0:
            done = spread_columns(pointer(scratch, 0), offsets, size, evens, stride, W, out)
        for w in range(done, W):
            value = dx.dtype.type(0)
            for q in range(over[2 * w], over[2 * w + 1]):
                value += sums[q]
            out[w] = value


@device_function
def same_cover(covers, h):
    """Whether the same windows lie over a row of pixels as over the one before."""
    return covers[h, 0] == covers[h - 1, 0] and covers[h, 1] == covers[h - 1, 1]


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


@device_function
def spread_columns(sums, offsets, size, evens, stride, W, out):
    """The pixels of a row, in blocks of which the last may overlap its neighbour; returns how many were served."""
    units = W // stride
    if units < FEW:
        return 0
    lanes = LANES if units >= LANES else FEW
    odd = shift(offsets, evens)
    for block in range((units + lanes - 1) // lanes):
        u = min(block * lanes, units - lanes)
        if stride == 1:
            if lanes == LANES:
                total(sums, offsets, size, u, shift(out, u))
            else:
                total_few(sums, offsets, size, u, shift(out, u))
        elif lanes == LANES:
            total_pairs(sums, offsets, evens, odd, size - evens, u, shift(out, 2 * u))
        else:
            total_pairs_few(sums, offsets, evens, odd, size - evens, u, shift(out, 2 * u))
    return units * stride
