"""Normalisation of rows with a weight and a bias for each column: layer norm, and RMS norm where ``centred`` is false.

x is (R, K), and row r uses the weights of its group r % G (G is 1 unless examples with weights of their own are folded into
rows). A row stays in the first-level cache through its passes: sum, deviations, write. Accuracy and cost are those of
``planes.py``. Backward also sums dy and dy * normalised x down the columns: for each block of at most 256 rows in the data's
type, then across the blocks, in their order, in float64.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.norm.runs import PIECE_ELEMENTS, first_mean, run_spread
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.streaming import stream

ROWS_TOGETHER = 4  # so that none waits for its own sums
FACTOR_ELEMENTS = 32  # of ROWS_TOGETHER rows, and of no other worker in a line of the cache
WIDE_ELEMENTS = 1 << 14  # of a row, above which the cache does not hold as many rows


@device_function
def row_spread(x, start, size, centre):
    """Returns the sums of a row's ``x - centre`` and of its square."""
    left, squared = 0.0, 0.0
    for at in range(0, size, PIECE_ELEMENTS):
        one, two = run_spread(x, start + at, min(PIECE_ELEMENTS, size - at), centre)
        left += one
        squared += two
    return left, squared


@device_function
def row_write(x, y, weight, bias, start, column, n, centre, scale, rest, room, past):
    """Writes ``y = ((x - centre) * scale + rest) * weight + bias``."""
    p, q, w, b = pointer(x, start), pointer(y, start), pointer(weight, column), pointer(bias, column)
    out = room if past else q
    for i in range(n):
        out[i] = ((p[i] - centre) * scale + rest) * w[i] + b[i]
    if past:
        stream(q, room, n)


@device_function
def _rows(chunk, worker, x, y, weight, bias, mean, rstd, each, groups, eps, centred, room, past):
    kind, size, own = x.dtype.type, x.shape[1], pointer(room, worker * PIECE_ELEMENTS)
    for row in range(chunk * each, min((chunk + 1) * each, x.shape[0])):
        start, column = row * size, row % groups * size
        centre = kind(first_mean(x, start, size) if centred else 0.0)
        left, squared = row_spread(x, start, size, centre)
        off = left / size if centred else 0.0
        squares = squared - left * off if centred else squared  # an infinite sum times 0 would be NaN
        mu, scale = centre + off, 1.0 / np.sqrt(squares / size + eps)
        mean[row], rstd[row] = mu, scale
        rest = kind((mean[row] - mu) * scale)  # what rounding took from the mean
        for at in range(0, size, PIECE_ELEMENTS):
            n = min(PIECE_ELEMENTS, size - at)
            row_write(x, y, weight, bias, start + at, column + at, n, mean[row], rstd[row], rest, own, past)


@kernel(
    touches={
        "y": lambda x: x.size,
        "weight": lambda x, groups: groups * x.shape[1],
        "bias": lambda x, groups: groups * x.shape[1],
        "mean": lambda x: len(x),
        "rstd": lambda x: len(x),
        "room": lambda past, threads: threads * PIECE_ELEMENTS if past else 0,
    }
)
def normalize_rows(x, y, weight, bias, mean, rstd, each, groups, eps, centred, room, past, threads):
    """Writes y = (x - mean) * rstd * weight + bias, ``each`` rows in a chunk; mean is left 0 unless ``centred``.

    room: PIECE_ELEMENTS for each worker. past: write y past the cache.
    """
    chunks = (x.shape[0] + each - 1) // each
    args = (x, y, weight, bias, mean, rstd, each, groups, eps, centred, room, past)
    parallel_for(_rows, chunks, threads, args)


# ---- backward -----------------------------------------------------------------------------------------------------------
@device_function
def row_dots(dy, x, weight, start, column, n, centre):
    """Returns the sums of ``dy * weight``, of it times ``x - centre``, and of ``x - centre``."""
    g, p, w = pointer(dy, start), pointer(x, start), pointer(weight, column)
    plain, along, left = x.dtype.type(0), x.dtype.type(0), x.dtype.type(0)
    for i in range(n):
        scaled, off = g[i] * w[i], p[i] - centre
        plain += scaled
        along += scaled * off
        left += off
    return np.float64(plain), np.float64(along), np.float64(left)


@device_function
def row_grad(dy, x, dx, weight, start, column, n, centre, a, b, c, room, past):
    """Writes ``dx = dy * weight * a + (x - centre) * b + c``."""
    g, p, q, w = pointer(dy, start), pointer(x, start), pointer(dx, start), pointer(weight, column)
    out = room if past else q
    for i in range(n):
        out[i] = g[i] * w[i] * a + ((p[i] - centre) * b + c)
    if past:
        stream(q, room, n)


@device_function
def row_factors(dy, x, weight, row, column, mean, rstd, centred, out):
    """Writes to ``out`` a, b and c of ``row_grad``, and the rest that rounding took from the normalised x."""
    size, start, centre, scale = x.shape[1], row * x.shape[1], mean[row], np.float64(rstd[row])
    plain, along, left = 0.0, 0.0, 0.0
    for at in range(0, size, PIECE_ELEMENTS):
        one, two, three = row_dots(dy, x, weight, start + at, column + at, min(PIECE_ELEMENTS, size - at), centre)
        plain += one
        along += two
        left += three
    rest = left / size if centred else 0.0
    b = -scale * scale * scale / size * (along - rest * plain if centred else along)
    out[0], out[1], out[2], out[3] = scale, b, -scale / size * plain - b * rest if centred else 0.0, -rest * scale


@device_function
def add_columns(dy, x, step, dw, db, size, centre, scale, rest):
    """Adds ``dy * ((x - centre) * scale + rest)`` and ``dy`` of four rows, ``step`` apart, to a block's sums of columns."""
    e, f, g, h = dy, shift(dy, step), shift(dy, 2 * step), shift(dy, 3 * step)
    p, q, r, s = x, shift(x, step), shift(x, 2 * step), shift(x, 3 * step)
    (m0, m1, m2, m3), (a0, a1, a2, a3), (c0, c1, c2, c3) = centre, scale, rest
    for i in range(size):
        one = e[i] * ((p[i] - m0) * a0 + c0) + f[i] * ((q[i] - m1) * a1 + c1)
        two = g[i] * ((r[i] - m2) * a2 + c2) + h[i] * ((s[i] - m3) * a3 + c3)
        dw[i] += one + two
    for i in range(size):  # apart, for LLVM gives up on vectors where too many pointers might overlap
        db[i] += (e[i] + f[i]) + (g[i] + h[i])


@device_function
def add_column(dy, x, dw, db, size, centre, scale, rest):
    """Adds the same of one row."""
    for i in range(size):
        dw[i] += dy[i] * ((x[i] - centre) * scale + rest)
    for i in range(size):
        db[i] += dy[i]


@device_function
def _row_grads(chunk, worker, dy, x, dx, weight, mean, rstd, parts, factors, each, groups, centred, room, past):
    """Runs over one block of ``each`` rows of one group, some at a time: their factors, dx, then the sums of columns."""
    kind, size, own = x.dtype.type, x.shape[1], pointer(room, worker * PIECE_ELEMENTS)
    rows = x.shape[0] // groups
    blocks, many = (rows + each - 1) // each, ROWS_TOGETHER if size <= WIDE_ELEMENTS else 1
    group, block = chunk // blocks, chunk % blocks
    stop = min((block + 1) * each, rows)
    dw, db = pointer(parts, chunk * 2 * size), pointer(parts, (chunk * 2 + 1) * size)
    for i in range(2 * size):
        dw[i] = kind(0)
    held = pointer(factors, worker * FACTOR_ELEMENTS)
    for n in range(block * each, stop, many):
        count = min(many, stop - n)
        for k in range(count):
            row = (n + k) * groups + group
            row_factors(dy, x, weight, row, group * size, mean, rstd, centred, shift(held, 4 * k))
        for k in range(count):
            row = (n + k) * groups + group
            for at in range(0, size, PIECE_ELEMENTS):
                start, column, some, f = (
                    row * size + at,
                    group * size + at,
                    min(PIECE_ELEMENTS, size - at),
                    shift(held, 4 * k),
                )
                row_grad(dy, x, dx, weight, start, column, some, mean[row], f[0], f[1], f[2], own, past)
        row, step = n * groups + group, groups * size
        g, p = pointer(dy, row * size), pointer(x, row * size)
        if count == ROWS_TOGETHER:
            i, j, k = row + groups, row + 2 * groups, row + 3 * groups
            means, scales = (mean[row], mean[i], mean[j], mean[k]), (rstd[row], rstd[i], rstd[j], rstd[k])
            rests = (held[3], held[7], held[11], held[15])
            add_columns(g, p, step, dw, db, size, means, scales, rests)
        else:
            for k in range(count):
                at = row + k * groups
                add_column(shift(g, k * step), shift(p, k * step), dw, db, size, mean[at], rstd[at], held[4 * k + 3])


@kernel(
    touches={
        "dy": lambda x: x.size,
        "dx": lambda x: x.size,
        "weight": lambda x, groups: groups * x.shape[1],
        "mean": lambda x: len(x),
        "rstd": lambda x: len(x),
        "dweight": lambda x, groups: groups * x.shape[1],
        "dbias": lambda x, groups: groups * x.shape[1],
        "sums": lambda x, groups: 2 * groups * x.shape[1],
        "parts": lambda x, each, groups: 2 * x.shape[1] * groups * -(-(len(x) // groups) // each),
        "factors": lambda threads: threads * FACTOR_ELEMENTS,
        "room": lambda past, threads: threads * PIECE_ELEMENTS if past else 0,
    }
)
def normalize_rows_grad(
    dy, x, dx, weight, mean, rstd, dweight, dbias, sums, parts, factors, each, groups, centred, room, past, threads
):
    """Writes dx, dweight and dbias (G, K). Scratch: both in float64, 2 K elements of a block, FACTOR_ELEMENTS of each worker.

    room: PIECE_ELEMENTS for each worker. past: write dx past the cache.
    """
    size = x.shape[1]
    blocks = (x.shape[0] // groups + each - 1) // each
    args = (dy, x, dx, weight, mean, rstd, parts, factors, each, groups, centred, room, past)
    parallel_for(_row_grads, groups * blocks, threads, args)
    both = pointer(sums, 0)
    for i in range(groups * 2 * size):
        both[i] = 0.0
    for chunk in range(groups * blocks):
        p, q = pointer(parts, chunk * 2 * size), pointer(sums, chunk // blocks * 2 * size)
        for i in range(2 * size):
            q[i] += p[i]
    for group in range(groups):
        both = pointer(sums, group * 2 * size)
        for i in range(size):
            dweight[group * size + i], dbias[group * size + i] = both[i], both[size + i]
