"""Normalisation of rows with a weight and a bias for each column: layer norm, and RMS norm where ``centred`` is false.

x is (R, K), and row r uses the weights of its group r % G (G is 1 unless examples with weights of their own are folded into
rows). A row stays in the first-level cache through its passes: sum, deviations, write. Accuracy and cost are those of
``norm.py``. Backward also sums dy and dy * normalised x down the columns: for each block of at most 256 rows in the data's
type, then across the blocks, in their order, in float64.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.norm import PIECE, run_spread, run_sum
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.vector import pointer


@device_function
def row_moments(x, start, size, centred):
    """``(mean, mean squared deviation from it)``, the mean held at 0 unless ``centred``."""
    total = 0.0
    if centred:
        for begin in range(0, size, PIECE):
            total += run_sum(x, start + begin, min(PIECE, size - begin))
    centre = x.dtype.type(total / size)
    left, squared = 0.0, 0.0
    for begin in range(0, size, PIECE):
        one, two = run_spread(x, start + begin, min(PIECE, size - begin), centre)
        left += one
        squared += two
    rest = left / size if centred else 0.0
    return centre + rest, squared / size - rest * rest


@device_function
def row_write(x, y, weight, bias, start, column, size, centre, scale, shift):
    """``y = ((x - centre) * scale + shift) * weight + bias``."""
    p, q, w, b = pointer(x, start), pointer(y, start), pointer(weight, column), pointer(bias, column)
    for i in range(size):
        q[i] = ((p[i] - centre) * scale + shift) * w[i] + b[i]


@device_function
def _rows(chunk, worker, x, y, weight, bias, mean, rstd, each, groups, eps, centred):
    kind, size = x.dtype.type, x.shape[1]
    for row in range(chunk * each, min((chunk + 1) * each, x.shape[0])):
        mu, spread = row_moments(x, row * size, size, centred)
        scale = 1.0 / np.sqrt(spread + eps)
        centre = kind(mu)
        mean[row], rstd[row] = centre, scale
        shift = kind((np.float64(centre) - mu) * scale)
        row_write(x, y, weight, bias, row * size, row % groups * size, size, centre, kind(scale), shift)


@kernel
def normalize_rows(x, y, weight, bias, mean, rstd, each, groups, eps, centred, threads):
    """y = (x - mean) * rstd * weight + bias, ``each`` rows in a chunk; mean is left 0 unless ``centred``."""
    chunks = (x.shape[0] + each - 1) // each
    parallel_for(_rows, chunks, threads, (x, y, weight, bias, mean, rstd, each, groups, eps, centred))


@device_function
def row_dots(dy, x, weight, start, column, size, centre):
    """The sums of ``dy * weight`` and of it times ``x - centre``."""
    g, p, w = pointer(dy, start), pointer(x, start), pointer(weight, column)
    plain, along = x.dtype.type(0), x.dtype.type(0)
    for i in range(size):
        scaled = g[i] * w[i]
        plain += scaled
        along += scaled * (p[i] - centre)
    return np.float64(plain), np.float64(along)


@device_function
def row_grad(dy, x, dx, weight, start, column, size, centre, a, b, c):
    """``dx = dy * weight * a + (x - centre) * b + c``."""
    g, p, q, w = pointer(dy, start), pointer(x, start), pointer(dx, start), pointer(weight, column)
    for i in range(size):
        q[i] = g[i] * w[i] * a + ((p[i] - centre) * b + c)


@device_function
def row_columns(dy, x, parts, start, place, size, centre, scale, shift):
    """Add ``dy * ((x - centre) * scale + shift)`` and ``dy`` to a block's sums of columns."""
    g, p, dw, db = pointer(dy, start), pointer(x, start), pointer(parts, place), pointer(parts, place + size)
    for i in range(size):
        dw[i] += g[i] * ((p[i] - centre) * scale + shift)
    for i in range(size):
        db[i] += g[i]


@device_function
def _row_grads(chunk, worker, dy, x, dx, weight, mean, rstd, parts, each, groups, centred):
    """One block of ``each`` rows of one group."""
    kind, size = x.dtype.type, x.shape[1]
    rows = x.shape[0] // groups
    blocks = (rows + each - 1) // each
    group, block = chunk // blocks, chunk % blocks
    place, column = chunk * 2 * size, group * size
    zeros = pointer(parts, place)
    for i in range(2 * size):
        zeros[i] = kind(0)
    for n in range(block * each, min((block + 1) * each, rows)):
        row = n * groups + group
        start, centre, scale = row * size, mean[row], np.float64(rstd[row])
        plain, along, left = 0.0, 0.0, 0.0
        for begin in range(0, size, PIECE):
            count = min(PIECE, size - begin)
            one, two = row_dots(dy, x, weight, start + begin, column + begin, count, centre)
            plain += one
            along += two
            if centred:
                left += run_sum_off(x, start + begin, count, centre)
        rest = left / size
        b = -scale * scale * scale / size * (along - rest * plain)
        c = -scale / size * plain - b * rest if centred else 0.0
        row_grad(dy, x, dx, weight, start, column, size, centre, kind(scale), kind(b), kind(c))
        row_columns(dy, x, parts, start, place, size, centre, kind(scale), kind(-rest * scale))


@device_function
def run_sum_off(x, start, n, centre):
    """The sum of ``x - centre``."""
    p = pointer(x, start)
    total = x.dtype.type(0)
    for i in range(n):
        total += p[i] - centre
    return np.float64(total)


@kernel
def normalize_rows_grad(dy, x, dx, weight, mean, rstd, dboth, parts, each, groups, centred, threads):
    """dx, and dboth (G, 2, K) in float64, zero at first: dweight and dbias. parts: 2 K numbers a block, scratch."""
    size = x.shape[1]
    blocks = (x.shape[0] // groups + each - 1) // each
    parallel_for(_row_grads, groups * blocks, threads, (dy, x, dx, weight, mean, rstd, parts, each, groups, centred))
    for chunk in range(groups * blocks):
        p, q = pointer(parts, chunk * 2 * size), pointer(dboth, chunk // blocks * 2 * size)
        for i in range(2 * size):
            q[i] += p[i]
