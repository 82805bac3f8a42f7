"""Normalisation of units that share one mean and variance: batch, group and instance norm in one pair of kernels.

A unit is P segments of L contiguous numbers, ``step`` apart, each with one weight and one bias: batch norm's unit is a
channel (P = N, L = S, step = C S), group norm's is a group of one image (P = C / G, L = S, step = S), and instance norm's is
P = 1. Segments are summed in pieces of at most 2048 numbers: in vectors of the data's type inside a piece, in float64 across.

The mean comes first and deviations are taken from it, so a large mean costs no digits; it is used as a head in the data's
type, whose difference from a number near it is exact, and a rest that goes into the additive constant. A unit is finished
before the next is begun, so it is read once from memory and then from the cache: 7 flops, 1 read and 1 write a number,
backward 11 flops, 2 reads and 1 write. Units too large for the cache, or too few for the threads, are cut into blocks: moments
of the blocks, combined after Chan, Golub and LeVeque (1979), then a second pass that writes.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.vector import pointer

PIECE = 2048


# ---- runs of contiguous numbers -----------------------------------------------------------------------------------------
@device_function
def run_sum(x, start, n):
    """The sum of n numbers."""
    p = pointer(x, start)
    total = x.dtype.type(0)
    for i in range(n):
        total += p[i]
    return np.float64(total)


@device_function
def run_spread(x, start, n, centre):
    """The sums of ``x - centre`` and of its square."""
    p = pointer(x, start)
    plain, squared = x.dtype.type(0), x.dtype.type(0)
    for i in range(n):
        off = p[i] - centre
        plain += off
        squared += off * off
    return np.float64(plain), np.float64(squared)


@device_function
def run_dots(dy, x, start, n, centre):
    """The sums of ``dy``, of ``dy * (x - centre)`` and of ``x - centre``."""
    g, p = pointer(dy, start), pointer(x, start)
    plain, along, left = x.dtype.type(0), x.dtype.type(0), x.dtype.type(0)
    for i in range(n):
        off = p[i] - centre
        plain += g[i]
        along += g[i] * off
        left += off
    return np.float64(plain), np.float64(along), np.float64(left)


@device_function
def run_scale(x, y, start, n, centre, scale, shift):
    """``y = (x - centre) * scale + shift``."""
    p, q = pointer(x, start), pointer(y, start)
    for i in range(n):
        q[i] = (p[i] - centre) * scale + shift


@device_function
def run_combine(dy, x, dx, start, n, centre, a, b, c):
    """``dx = dy * a + (x - centre) * b + c``."""
    g, p, q = pointer(dy, start), pointer(x, start), pointer(dx, start)
    for i in range(n):
        q[i] = g[i] * a + ((p[i] - centre) * b + c)


# ---- pieces of a unit: layout = (P, L, step of a segment, step of a unit) ------------------------------------------------
@device_function
def piece_at(layout, unit, piece):
    """``(segment, where the piece begins, its length)``."""
    across = (layout[1] + PIECE - 1) // PIECE
    segment = piece // across
    begin = (piece - segment * across) * PIECE
    return segment, unit * layout[3] + segment * layout[2] + begin, min(PIECE, layout[1] - begin)


@device_function
def value_at(values, place, unit, segment):
    """The weight or bias of a segment; place = (period of units, step of a unit, step of a segment)."""
    return values[(unit % place[0]) * place[1] + segment * place[2]]


@device_function
def block_moments(x, layout, unit, begin, end):
    """``(count, mean, sum of squared deviations)`` of some pieces."""
    count, total = 0, 0.0
    for piece in range(begin, end):
        _, start, n = piece_at(layout, unit, piece)
        count += n
        total += run_sum(x, start, n)
    centre = x.dtype.type(total / count)
    left, squared = 0.0, 0.0
    for piece in range(begin, end):
        _, start, n = piece_at(layout, unit, piece)
        one, two = run_spread(x, start, n, centre)
        left += one
        squared += two
    return count, centre + left / count, squared - left * left / count


@device_function
def block_write(x, y, weight, bias, layout, places, unit, begin, end, mean, rstd):
    """y = (x - mean) * rstd * weight + bias of some pieces."""
    kind = x.dtype.type
    centre = kind(mean)
    rest = mean - np.float64(centre)
    for piece in range(begin, end):
        segment, start, n = piece_at(layout, unit, piece)
        scale = rstd * value_at(weight, places[0], unit, segment)
        shift = value_at(bias, places[1], unit, segment) - rest * scale
        run_scale(x, y, start, n, centre, kind(scale), kind(shift))


# ---- forward ----------------------------------------------------------------------------------------------------------
@device_function
def _whole_units(chunk, worker, x, y, weight, bias, stats, layout, places, cut, eps):
    """Units that fit the cache, ``cut[0]`` of them in a chunk."""
    pieces = layout[0] * ((layout[1] + PIECE - 1) // PIECE)
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], stats.shape[1])):
        count, mean, squared = block_moments(x, layout, unit, 0, pieces)
        stats[0, unit], stats[2, unit] = mean, squared / count
        stats[1, unit] = 1.0 / np.sqrt(squared / count + eps)
        block_write(x, y, weight, bias, layout, places, unit, 0, pieces, mean, stats[1, unit])


@device_function
def _some_moments(chunk, worker, x, layout, cut, parts):
    unit, block = chunk // cut[1], chunk % cut[1]
    pieces = layout[0] * ((layout[1] + PIECE - 1) // PIECE)
    count, mean, squared = block_moments(x, layout, unit, block * pieces // cut[1], (block + 1) * pieces // cut[1])
    parts[chunk, 0], parts[chunk, 1], parts[chunk, 2] = count, mean, squared


@device_function
def _some_written(chunk, worker, x, y, weight, bias, stats, layout, places, cut):
    unit, block = chunk // cut[1], chunk % cut[1]
    pieces = layout[0] * ((layout[1] + PIECE - 1) // PIECE)
    begin, end = block * pieces // cut[1], (block + 1) * pieces // cut[1]
    block_write(x, y, weight, bias, layout, places, unit, begin, end, stats[0, unit], stats[1, unit])


@kernel
def normalize(x, y, weight, bias, stats, parts, layout, places, cut, eps, threads):
    """y = (x - mean) * rstd * weight + bias, and stats (3, units) = mean, rstd, var in float64.

    cut: units in a chunk, and blocks in a unit (1, or the chunks are the blocks); parts (units * blocks, 3): scratch.
    """
    units = stats.shape[1]
    if cut[1] == 1:
        chunks = (units + cut[0] - 1) // cut[0]
        parallel_for(_whole_units, chunks, threads, (x, y, weight, bias, stats, layout, places, cut, eps))
        return
    parallel_for(_some_moments, units * cut[1], threads, (x, layout, cut, parts))
    for unit in range(units):
        count, mean, squared = 0.0, 0.0, 0.0
        for part in range(unit * cut[1], (unit + 1) * cut[1]):
            n, off = parts[part, 0], parts[part, 1] - mean
            squared += parts[part, 2] + off * off * (count * n / (count + n))
            count += n
            mean += off * (n / count)
        stats[0, unit], stats[2, unit] = mean, squared / count
        stats[1, unit] = 1.0 / np.sqrt(squared / count + eps)
    parallel_for(_some_written, units * cut[1], threads, (x, y, weight, bias, stats, layout, places, cut))


# ---- backward -----------------------------------------------------------------------------------------------------------
@device_function
def block_dots(dy, x, layout, unit, begin, end, mean, dots):
    """Fill dots (unit, piece, 3) for some pieces."""
    pieces = layout[0] * ((layout[1] + PIECE - 1) // PIECE)
    for piece in range(begin, end):
        _, start, n = piece_at(layout, unit, piece)
        at = unit * pieces + piece
        dots[at, 0], dots[at, 1], dots[at, 2] = run_dots(dy, x, start, n, mean[unit])


@device_function
def unit_totals(weight, layout, places, unit, rstd, dots, totals):
    """What the pieces' sums come to: the sums of dy * weight and of it times the normalised x, and the mean's rest."""
    across = (layout[1] + PIECE - 1) // PIECE
    first, left = unit * layout[0] * across, 0.0
    for piece in range(layout[0] * across):
        left += dots[first + piece, 2]
    rest = left / (layout[0] * layout[1])
    plain, along = 0.0, 0.0
    for piece in range(layout[0] * across):
        at = first + piece
        dots[at, 1] = (dots[at, 1] - rest * dots[at, 0]) * rstd[unit]
        w = value_at(weight, places[0], unit, piece // across)
        plain += w * dots[at, 0]
        along += w * dots[at, 1]
    totals[unit, 0], totals[unit, 1], totals[unit, 2] = plain, along, rest


@device_function
def block_grad(dy, x, dx, weight, layout, places, unit, begin, end, mean, rstd, totals):
    """dx = rstd * (dy * weight - plain / M - normalised x * along / M) of some pieces, M the numbers of a unit."""
    kind, scale = x.dtype.type, np.float64(rstd[unit])
    share = scale / (layout[0] * layout[1])
    b = -share * scale * totals[unit, 1]
    c = -share * totals[unit, 0] - b * totals[unit, 2]
    for piece in range(begin, end):
        segment, start, n = piece_at(layout, unit, piece)
        a = scale * value_at(weight, places[0], unit, segment)
        run_combine(dy, x, dx, start, n, mean[unit], kind(a), kind(b), kind(c))


@device_function
def _whole_grads(chunk, worker, dy, x, dx, weight, mean, rstd, layout, places, cut, dots, totals):
    pieces = layout[0] * ((layout[1] + PIECE - 1) // PIECE)
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], mean.size)):
        block_dots(dy, x, layout, unit, 0, pieces, mean, dots)
        unit_totals(weight, layout, places, unit, rstd, dots, totals)
        block_grad(dy, x, dx, weight, layout, places, unit, 0, pieces, mean, rstd, totals)


@device_function
def _some_dots(chunk, worker, dy, x, mean, layout, cut, dots):
    unit, block = chunk // cut[1], chunk % cut[1]
    pieces = layout[0] * ((layout[1] + PIECE - 1) // PIECE)
    block_dots(dy, x, layout, unit, block * pieces // cut[1], (block + 1) * pieces // cut[1], mean, dots)


@device_function
def _some_grads(chunk, worker, dy, x, dx, weight, mean, rstd, layout, places, cut, totals):
    unit, block = chunk // cut[1], chunk % cut[1]
    pieces = layout[0] * ((layout[1] + PIECE - 1) // PIECE)
    begin, end = block * pieces // cut[1], (block + 1) * pieces // cut[1]
    block_grad(dy, x, dx, weight, layout, places, unit, begin, end, mean, rstd, totals)


@kernel
def normalize_grad(dy, x, dx, weight, mean, rstd, dweight, dbias, dots, totals, layout, places, cut, threads):
    """dx, and dweight and dbias (float64, zero at first) where the weights lie; mean and rstd are in the data's type.

    dots (all pieces, 3) and totals (units, 3): float64 scratch. What rounding took from the mean is found again here.
    """
    units = mean.size
    if cut[1] == 1:
        chunks = (units + cut[0] - 1) // cut[0]
        parallel_for(_whole_grads, chunks, threads, (dy, x, dx, weight, mean, rstd, layout, places, cut, dots, totals))
    else:
        parallel_for(_some_dots, units * cut[1], threads, (dy, x, mean, layout, cut, dots))
        for unit in range(units):
            unit_totals(weight, layout, places, unit, rstd, dots, totals)
        parallel_for(_some_grads, units * cut[1], threads, (dy, x, dx, weight, mean, rstd, layout, places, cut, totals))
    across = (layout[1] + PIECE - 1) // PIECE
    for at in range(dots.shape[0]):
        unit = at // (layout[0] * across)
        segment = at // across - unit * layout[0]
        place = (unit % places[1][0]) * places[1][1] + segment * places[1][2]
        dweight[place] += dots[at, 1]
        dbias[place] += dots[at, 0]


# ---- evaluation ---------------------------------------------------------------------------------------------------------
@device_function
def row_scale(x, y, start, n, centre, scale, shift):
    """``y = (x - centre) * scale + shift`` with vectors of them."""
    p, q, m, a, b = pointer(x, start), pointer(y, start), pointer(centre, 0), pointer(scale, 0), pointer(shift, 0)
    for i in range(n):
        q[i] = (p[i] - m[i]) * a[i] + b[i]


@device_function
def _scaled(chunk, worker, x, y, centre, scale, shift, each):
    N, C, S = x.shape
    if S == 1:
        for n in range(chunk * each, min((chunk + 1) * each, N)):
            row_scale(x, y, n * C, C, centre, scale, shift)
        return
    for segment in range(chunk * each, min((chunk + 1) * each, N * C)):
        c = segment % C
        run_scale(x, y, segment * S, S, centre[c], scale[c], shift[c])


@kernel
def scale_channels(x, y, centre, scale, shift, each, threads):
    """y = (x - centre) * scale + shift for each channel of x (N, C, S); ``each`` segments, or rows if S = 1, in a chunk."""
    count = x.shape[0] if x.shape[2] == 1 else x.shape[0] * x.shape[1]
    parallel_for(_scaled, (count + each - 1) // each, threads, (x, y, centre, scale, shift, each))
