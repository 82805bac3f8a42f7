"""Average pooling over three spatial dimensions of (M, D, H, W) images, M being batch times channels.

Windows are given by tables along D, H and W, one after another in an array: ``bounds`` (O + P + Q, 2) start and end of each
window in the input, ``covers`` (D + H + W, 2) the first and last-but-one window over each input pixel, and ``extents``
(O + P + Q) whose products are the divisors. The gradient gathers: a row of dx is the sum of the rows of dy over it, each
divided, and then each pixel sums the columns over it. So every array passes through memory once.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.pool.rows import deliver, fill, lines_under, sum_by_phase, three_from
from funcnn.kernels.cpu.pool.taps import paired_totals, scale_row, totals, window_means
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row
from funcnn.kernels.cpu.vector.streaming import to_line
from funcnn.kernels.cpu.vector.table_taps import weighted_taps

HEAD_ENTRIES, GRAD_HEAD_ENTRIES = 14, 12  # of the tables in front of their offsets
BLOCK_ROWS = 4  # rows


# ---- windows of one size --------------------------------------------------------------------------------------------
@kernel(
    touches={
        "x": lambda x, y: x.size // max(len(x), 1) * len(y),
        "table": lambda y, table: HEAD_ENTRIES + int(table[2]) + sum(y.shape[1:]),
        "across": lambda y, table: y.shape[3] + int(table[11]),
        "floats": lambda table, threads: threads * int(table[12]),
        "ints": lambda table, threads: threads * int(table[13]),
    }
)
def avg_pool(x, y, table, across, floats, ints, rows, past, threads):
    """Writes y = the sum of each window divided by its extents.

    table: size, stride and padding; margin and distance of phases of a row by phase, slack; elements of ``floats`` and ``ints``
    for each worker; where the taps of the first window lie in a row by phase; the extents. across: the extents along W, with
    slack. ``rows`` output rows make a chunk; ``past``: y is written past the cache.
    """
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(avg_pool_rows, chunks, threads, (x, y, table, across, floats, ints, rows, past))


@device_function
def avg_pool_rows(chunk, worker, x, y, table, across, floats, ints, rows, past):
    """Works on output rows [chunk * rows, (chunk + 1) * rows) of ``avg_pool``: the rows under a window are summed, then columns.

    ``BLOCK_ROWS`` rows are summed before the first is read again, so that no load waits for a store just made.
    """
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    size, stride, padding = three_from(table, 0), three_from(table, 3), three_from(table, 6)
    (margin, apart, more), zero = three_from(table, 9), x.dtype.type(0)
    sums, used = pointer(floats, worker * table[12]), BLOCK_ROWS * stride[2] * apart + more
    means, divisors = shift(sums, used), shift(sums, used + BLOCK_ROWS * Q + more)
    ones, line = shift(divisors, BLOCK_ROWS), shift(divisors, BLOCK_ROWS + size[0] * size[1])
    lines, columns = pointer(ints, worker * table[13]), pointer(table, HEAD_ENTRIES)
    extents, factors, aligned = pointer(table, HEAD_ENTRIES + size[2]), pointer(across, 0), to_line(sums)
    fill(sums, zero, used), fill(ones, zero + 1, size[0] * size[1])
    first, last = chunk * rows, min((chunk + 1) * rows, M * O * P)
    for block in range(first, last, BLOCK_ROWS):
        count = min(BLOCK_ROWS, last - block)
        for u in range(count):
            m, plane_row = divmod(block + u, O * P)
            o, p = divmod(plane_row, P)
            taps = lines_under(lines, o, p, x, size, stride, padding, (1, 1, 1))
            divisors[u] = extents[o] * extents[O + p]
            image, target = pointer(x, m * D * H * W), shift(sums, aligned + u * stride[2] * apart + margin)
            sum_by_phase(image, lines, ones, taps, W, stride[2], target, apart, zero, line)
        for u in range(count):
            summed, out = shift(sums, aligned + u * stride[2] * apart), shift(means, u * Q)
            window_means(summed, columns, size[2], Q, divisors[u], factors, out)
        deliver(pointer(y, block * Q), means, count * Q, past)


# ---- windows of any bounds ------------------------------------------------------------------------------------------
@kernel(
    touches={
        "x": lambda x, y: x.size // max(len(x), 1) * len(y),
        "extents": lambda y: sum(y.shape[1:]),
        "bounds": lambda y: 2 * sum(y.shape[1:]),
        "sums": lambda x, each, threads: threads * max(each, x.shape[3]),
    }
)
def window_mean(x, y, bounds, extents, sums, each, rows, threads):
    """Writes y = the sum of each window divided by its extents: rows are summed first, then columns of the sum.

    sums: ``each`` elements for each worker, a row of x at least.
    """
    M, O, P, _ = y.shape
    parallel_for(window_mean_rows, (M * O * P + rows - 1) // rows, threads, (x, y, bounds, extents, sums, each, rows))


@device_function
def window_mean_rows(chunk, worker, x, y, bounds, extents, room, each, rows):
    """Works on output rows [chunk * rows, (chunk + 1) * rows) of ``window_mean``."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    sums = pointer(room, worker * each)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
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


@kernel(touches={"y": lambda x: len(x)})
def mean_rows(x, y, rows, threads):
    """Writes y[m] = the mean of x[m]: pooling to one pixel. ``rows`` rows of x (M, n) make a chunk."""
    parallel_for(mean_of_rows, (x.shape[0] + rows - 1) // rows, threads, (x, y, rows))


@device_function
def mean_of_rows(chunk, worker, x, y, rows):
    """Works on the rows of a chunk of ``mean_rows``."""
    M, n = x.shape
    for m in range(chunk * rows, min((chunk + 1) * rows, M)):
        source = pointer(x, m * n)
        value = x.dtype.type(0)
        for w in range(n):
            value += source[w]
        y[m] = value / n


@kernel(touches={"dy": lambda dx: len(dx)})
def mean_rows_grad(dy, dx, rows, threads):
    """Writes dx[m] = dy[m] / n in all of its n elements: the gradient of ``mean_rows``."""
    parallel_for(mean_rows_grad_chunk, (dx.shape[0] + rows - 1) // rows, threads, (dy, dx, rows))


@device_function
def mean_rows_grad_chunk(chunk, worker, dy, dx, rows):
    """Works on the rows of a chunk of ``mean_rows_grad``."""
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
        "table": lambda dx, table: GRAD_HEAD_ENTRIES + 2 * int(table[0]) + 2 * sum(dx.shape[1:]),
        "shares": lambda dy, table: sum(dy.shape[1:]) + int(table[6]),
        "columns": lambda table: int(table[10] * table[11]),
        "weights": lambda table: int(table[10] * table[11]),
        "floats": lambda table, threads: threads * int(table[7]),
        "ints": lambda table, threads: threads * int(table[8]),
    }
)
def avg_pool_grad(dy, dx, table, shares, columns, weights, floats, ints, rows, past, threads):
    """Writes dx = the transpose of the pooling: each dy is shared out over its window. ``rows`` rows of dx make a chunk.

    table: size, stride and padding along W; margin of a row of sums, how far apart two lie, how many offsets are of even
    pixels, slack; elements of ``floats`` and ``ints`` for each worker; the most rows of dy over one of dx; taps and pitch of
    columns; the offsets of the columns over pixels; the covers. stride: 1 or 2 (then size > 1) where windows have one size,
    else 0, and ``columns`` and ``weights`` are a table (``table_taps.py``) of the windows over each column, 1 by the extent
    being the weight. shares: 1 by the extents, with slack.
    """
    M, D, H, _ = dx.shape
    chunks = (M * D * H + rows - 1) // rows
    where = (dy, dx, table, shares, columns, weights, floats, ints, rows, past)
    parallel_for(avg_pool_grad_rows, chunks, threads, where)


@device_function
def avg_pool_grad_rows(chunk, worker, dy, dx, table, shares, columns, weights, floats, ints, rows, past):
    """Works on rows [chunk * rows, (chunk + 1) * rows) of dx, counted over images, depths and heights; ``BLOCK_ROWS`` at a time."""
    M, O, P, Q = dy.shape
    _, D, H, W = dx.shape
    (size, stride, _), (margin, apart, evens) = three_from(table, 0), three_from(table, 3)
    more, most, zero = table[6], table[9], dx.dtype.type(0)
    sums, used = pointer(floats, worker * table[7]), BLOCK_ROWS * apart + more
    slopes, parts = shift(sums, used), shift(sums, used + BLOCK_ROWS * W + 2 * more)
    lines, again = pointer(ints, worker * table[8]), pointer(ints, worker * table[8] + most)
    offsets, deep, high = (
        pointer(table, GRAD_HEAD_ENTRIES),
        pointer(table, GRAD_HEAD_ENTRIES + 2 * size),
        pointer(table, GRAD_HEAD_ENTRIES + 2 * size + 2 * D),
    )
    share, aligned = pointer(shares, 0), to_line(sums)
    fill(sums, zero, used)
    first, last = chunk * rows, min((chunk + 1) * rows, M * D * H)
    for block in range(first, last, BLOCK_ROWS):
        count = min(BLOCK_ROWS, last - block)
        for u in range(count):
            m, plane_row = divmod(block + u, D * H)
            d, h = divmod(plane_row, H)
            again[u] = u > 0 and h > 0 and high[2 * h] == high[2 * h - 2] and high[2 * h + 1] == high[2 * h - 1]
            if again[u]:
                continue
            taps = 0
            for o in range(deep[2 * d], deep[2 * d + 1]):
                for p in range(high[2 * h], high[2 * h + 1]):
                    lines[taps], parts[taps] = (o * P + p) * Q, share[o] * share[O + p]
                    taps += 1
            summed = shift(sums, aligned + u * apart + margin)
            if taps == 0:
                clear_row(summed, Q)
            else:
                sum_by_phase(pointer(dy, m * O * P * Q), lines, parts, taps, Q, 1, summed, 0, zero, summed)
                if stride > 0:
                    scale_row(summed, shift(share, O + P), Q)
        for u in range(count):
            source, out = shift(sums, aligned + u * apart), shift(slopes, u * W)
            if again[u]:
                copy_row(out, shift(slopes, (u - 1) * W), W)
            elif stride == 1:
                totals(source, offsets, size, W, out)
            elif stride == 2:
                paired_totals(source, offsets, evens, shift(offsets, evens), size - evens, (W + 1) // 2, out)
            else:
                over, weight = pointer(columns, 0), pointer(weights, 0)
                weighted_taps(shift(source, margin), over, weight, table[10], table[11], W, out)
        deliver(pointer(dx, block * W), slopes, count * W, past)
