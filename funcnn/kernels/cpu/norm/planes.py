"""Normalisation of units that share one mean and variance: batch, group and instance norm in one pair of kernels.

A unit is P segments of L contiguous elements, ``step`` apart, each with one weight and one bias: batch norm's unit is a
channel (P = N, L = S, step = C S), group norm's is a group of one image (P = C / G, L = S, step = S), and instance norm's is
P = 1. Segments are taken in pieces of at most PIECE_ELEMENTS, a segment's own.

Deviations are taken from a mean that is known before: of the first piece, then of all pieces so far, renewed when their
number has doubled, so that a large mean costs no digits, and x is read once from memory for its moments (blocks are combined
after Chan, Golub and LeVeque, 1979). The mean is used as a head in the data's type, whose difference from an element near it is
exact, and a rest that goes into the additive constant. A unit is finished before the next is begun, so what is written is
computed from the cache: 7 flops, 1 read and 1 write an element, backward 11 flops, 2 reads and 1 write. Units too large for the
cache, or too few for the threads, are cut into blocks: moments of the blocks, then a second pass that writes.

``plan`` holds what the wrapper decides: see ``layout_of``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.norm.runs import PIECE_ELEMENTS, first_mean, run_combine, run_dots, run_scale, run_spread
from funcnn.kernels.cpu.vector.instructions import pointer


def units_end(plan: Any, units: int) -> int:
    """Counts the elements of x up to the last of any unit; the segments of one may be between those of another."""
    return int((units - 1) * plan[3] + (plan[0] - 1) * plan[2] + plan[1])


def values_end(place: Any, segments: int) -> int:
    """Counts the weights or biases of all units and segments."""
    return int((place[0] - 1) * place[1] + (segments - 1) * place[2] + 1)


# ---- pieces of a unit ---------------------------------------------------------------------------------------------------
@device_function
def layout_of(plan):
    """Returns ``(P, L, stride of a segment, stride of a unit)`` of a plan, whose other entries are the two below and two of a cut:
    units in a chunk, and blocks in a unit (1, or the chunks are the blocks)."""
    return plan[0], plan[1], plan[2], plan[3]


@device_function
def places_of(plan):
    """Returns the layouts of weights and biases, each as (period of units, stride of a unit, stride of a segment)."""
    return (plan[4], plan[5], plan[6]), (plan[7], plan[8], plan[9])


@device_function
def pieces_of(layout):
    """Counts the pieces of a unit."""
    return layout[0] * ((layout[1] + PIECE_ELEMENTS - 1) // PIECE_ELEMENTS)


@device_function
def piece_at(layout, unit, piece):
    """Returns ``(segment, offset of the piece, its length)``."""
    across = (layout[1] + PIECE_ELEMENTS - 1) // PIECE_ELEMENTS
    segment = piece // across
    begin = (piece - segment * across) * PIECE_ELEMENTS
    return segment, unit * layout[3] + segment * layout[2] + begin, min(PIECE_ELEMENTS, layout[1] - begin)


@device_function
def value_at(values, place, unit, segment):
    """Returns the weight or bias of a segment."""
    return values[(unit % place[0]) * place[1] + segment * place[2]]


@device_function
def joined(count, mean, squared, n, other, spread):
    """Returns count, mean and sum of squared deviations of two sets of elements together."""
    off, total = other - mean, count + n
    return total, mean + off * (n / total), squared + spread + off * off * (count * n / total)


@device_function
def block_moments(x, layout, unit, begin, end):
    """Returns ``(count, mean, sum of squared deviations)`` of some pieces."""
    kind = x.dtype.type
    _, start, n = piece_at(layout, unit, begin)
    count, mean, squared = 0.0, first_mean(x, start, n), 0.0
    done, stop = begin, begin + 1
    while done < end:
        centre, held, left, spread = kind(mean), 0, 0.0, 0.0
        for piece in range(done, stop):
            _, start, n = piece_at(layout, unit, piece)
            plain, squares = run_spread(x, start, n, centre)
            held += n
            left += plain
            spread += squares
        off = left / held
        count, mean, squared = joined(count, mean, squared, held, centre + off, spread - off * left)
        done, stop = stop, min(end, 2 * stop - begin)
    return count, mean, squared


@device_function
def block_write(x, y, weight, bias, layout, places, unit, begin, end, mean, rstd, room, past):
    """Writes y = (x - mean) * rstd * weight + bias of some pieces."""
    kind = x.dtype.type
    centre = kind(mean)
    rest = mean - np.float64(centre)
    for piece in range(begin, end):
        segment, start, n = piece_at(layout, unit, piece)
        scale = rstd * value_at(weight, places[0], unit, segment)
        shift = value_at(bias, places[1], unit, segment) - rest * scale
        run_scale(x, y, start, n, centre, kind(scale), kind(shift), room, past)


# ---- forward ----------------------------------------------------------------------------------------------------------
@device_function
def _whole_units(chunk, worker, x, y, weight, bias, mean, rstd, var, layout, places, each, eps, room, past):
    """Units that fit the cache, ``each`` of them in a chunk."""
    pieces, own = pieces_of(layout), pointer(room, worker * PIECE_ELEMENTS)
    level = (
        layout if layout[2] != layout[1] else (1, layout[0] * layout[1], layout[2], layout[3])
    )  # segments that touch
    for unit in range(chunk * each, min((chunk + 1) * each, mean.size)):
        count, mu, squared = block_moments(x, level, unit, 0, pieces_of(level))
        scale = 1.0 / np.sqrt(squared / count + eps)
        mean[unit], rstd[unit], var[unit] = mu, scale, squared / count
        block_write(x, y, weight, bias, layout, places, unit, 0, pieces, mu, scale, own, past)


@device_function
def _some_moments(chunk, worker, x, layout, blocks, parts):
    unit, block, pieces = chunk // blocks, chunk % blocks, pieces_of(layout)
    count, mean, squared = block_moments(x, layout, unit, block * pieces // blocks, (block + 1) * pieces // blocks)
    parts[chunk, 0], parts[chunk, 1], parts[chunk, 2] = count, mean, squared


@device_function
def _some_written(chunk, worker, x, y, weight, bias, parts, layout, places, blocks, room, past):
    unit, block, pieces = chunk // blocks, chunk % blocks, pieces_of(layout)
    begin, end, first = block * pieces // blocks, (block + 1) * pieces // blocks, unit * blocks
    own = pointer(room, worker * PIECE_ELEMENTS)
    block_write(x, y, weight, bias, layout, places, unit, begin, end, parts[first, 1], parts[first, 2], own, past)


@kernel(
    touches={
        "x": lambda mean, plan: units_end(plan, mean.size),
        "y": lambda mean, plan: units_end(plan, mean.size),
        "weight": lambda plan: values_end(plan[4:7], plan[0]),
        "bias": lambda plan: values_end(plan[7:10], plan[0]),
        "rstd": lambda mean: mean.size,
        "var": lambda mean: mean.size,
        "parts": lambda mean, plan: 3 * mean.size * int(plan[11]) if plan[11] > 1 else 0,
        "room": lambda past, threads: threads * PIECE_ELEMENTS if past else 0,
    }
)
def normalize(x, y, weight, bias, mean, rstd, var, parts, room, plan, eps, past, threads):
    """Writes y = (x - mean) * rstd * weight + bias, and the three statistics of each unit.

    parts (units * blocks, 3): scratch in float64. room: PIECE_ELEMENTS for each worker. past: write y past the cache.
    """
    layout, places, each, blocks = layout_of(plan), places_of(plan), plan[10], plan[11]
    units = mean.size
    if blocks == 1:
        args: tuple = (x, y, weight, bias, mean, rstd, var, layout, places, each, eps, room, past)
        parallel_for(_whole_units, (units + each - 1) // each, threads, args)
        return
    parallel_for(_some_moments, units * blocks, threads, (x, layout, blocks, parts))
    for unit in range(units):
        first = unit * blocks
        count, mu, squared = parts[first, 0], parts[first, 1], parts[first, 2]
        for part in range(first + 1, first + blocks):
            count, mu, squared = joined(count, mu, squared, parts[part, 0], parts[part, 1], parts[part, 2])
        scale = 1.0 / np.sqrt(squared / count + eps)
        mean[unit], rstd[unit], var[unit] = mu, scale, squared / count
        parts[first, 1], parts[first, 2] = mu, scale  # for the second pass, in float64
    args = (x, y, weight, bias, parts, layout, places, blocks, room, past)
    parallel_for(_some_written, units * blocks, threads, args)


# ---- backward -----------------------------------------------------------------------------------------------------------
@device_function
def block_dots(dy, x, layout, unit, begin, end, mean, dots):
    """Writes dots (unit, piece, 3) for some pieces."""
    pieces = pieces_of(layout)
    for piece in range(begin, end):
        _, start, n = piece_at(layout, unit, piece)
        at = unit * pieces + piece
        dots[at, 0], dots[at, 1], dots[at, 2] = run_dots(dy, x, start, n, mean[unit])


@device_function
def unit_totals(weight, layout, places, unit, rstd, dots, totals):
    """Returns what the pieces' sums come to: those of dy * weight and of it times the normalised x, and the mean's rest.

    Then the sums of each segment stand in its first piece.
    """
    across = (layout[1] + PIECE_ELEMENTS - 1) // PIECE_ELEMENTS
    first, left = unit * layout[0] * across, 0.0
    for at in range(first, first + layout[0] * across):
        left += dots[at, 2]
    rest, scale = left / (layout[0] * layout[1]), np.float64(rstd[unit])
    plain, along = 0.0, 0.0
    for segment in range(layout[0]):
        at = first + segment * across
        for piece in range(at + 1, at + across):
            dots[at, 0] += dots[piece, 0]
            dots[at, 1] += dots[piece, 1]
        dots[at, 1] = (dots[at, 1] - rest * dots[at, 0]) * scale
        w = value_at(weight, places[0], unit, segment)
        plain += w * dots[at, 0]
        along += w * dots[at, 1]
    totals[unit, 0], totals[unit, 1], totals[unit, 2] = plain, along, rest


@device_function
def block_grad(dy, x, dx, weight, layout, places, unit, begin, end, mean, rstd, totals, room, past):
    """Writes dx = rstd * (dy * weight - plain / M - normalised x * along / M) of some pieces, M the elements of a unit."""
    kind, scale = x.dtype.type, np.float64(rstd[unit])
    share = scale / (layout[0] * layout[1])
    b = -share * scale * totals[unit, 1]
    c = -share * totals[unit, 0] - b * totals[unit, 2]
    for piece in range(begin, end):
        segment, start, n = piece_at(layout, unit, piece)
        a = scale * value_at(weight, places[0], unit, segment)
        run_combine(dy, x, dx, start, n, mean[unit], kind(a), kind(b), kind(c), room, past)


@device_function
def _whole_grads(chunk, worker, dy, x, dx, weight, mean, rstd, layout, places, each, dots, totals, room, past):
    pieces, own = pieces_of(layout), pointer(room, worker * PIECE_ELEMENTS)
    for unit in range(chunk * each, min((chunk + 1) * each, mean.size)):
        block_dots(dy, x, layout, unit, 0, pieces, mean, dots)
        unit_totals(weight, layout, places, unit, rstd, dots, totals)
        block_grad(dy, x, dx, weight, layout, places, unit, 0, pieces, mean, rstd, totals, own, past)


@device_function
def _some_dots(chunk, worker, dy, x, mean, layout, blocks, dots):
    unit, block, pieces = chunk // blocks, chunk % blocks, pieces_of(layout)
    block_dots(dy, x, layout, unit, block * pieces // blocks, (block + 1) * pieces // blocks, mean, dots)


@device_function
def _some_grads(chunk, worker, dy, x, dx, weight, mean, rstd, layout, places, blocks, totals, room, past):
    unit, block, pieces = chunk // blocks, chunk % blocks, pieces_of(layout)
    begin, end, own = block * pieces // blocks, (block + 1) * pieces // blocks, pointer(room, worker * PIECE_ELEMENTS)
    block_grad(dy, x, dx, weight, layout, places, unit, begin, end, mean, rstd, totals, own, past)


@kernel(
    touches={
        "dy": lambda mean, plan: units_end(plan, mean.size),
        "x": lambda mean, plan: units_end(plan, mean.size),
        "dx": lambda mean, plan: units_end(plan, mean.size),
        "weight": lambda plan: values_end(plan[4:7], plan[0]),
        "rstd": lambda mean: mean.size,
        "dweight": lambda plan: values_end(plan[7:10], plan[0]),
        "dbias": lambda dweight: dweight.size,
        "sums": lambda dweight: 2 * dweight.size,
        "dots": lambda mean, plan: 3 * mean.size * (1 + int(plan[0]) * -(-int(plan[1]) // PIECE_ELEMENTS)),
        "room": lambda past, threads: threads * PIECE_ELEMENTS if past else 0,
    }
)
def normalize_grad(dy, x, dx, weight, mean, rstd, dweight, dbias, sums, dots, room, plan, past, threads):
    """Writes dx, and dweight and dbias in the layout of weights that the plan gives second.

    sums (both of them) and dots (all pieces + units, 3): float64 scratch. What rounding took from the mean is found again here.
    """
    layout, places, each, blocks, units = layout_of(plan), places_of(plan), plan[10], plan[11], mean.size
    pieces = pieces_of(layout)
    totals = dots[units * pieces :]
    if blocks == 1:
        args: tuple = (dy, x, dx, weight, mean, rstd, layout, places, each, dots, totals, room, past)
        parallel_for(_whole_grads, (units + each - 1) // each, threads, args)
    else:
        parallel_for(_some_dots, units * blocks, threads, (dy, x, mean, layout, blocks, dots))
        for unit in range(units):
            unit_totals(weight, layout, places, unit, rstd, dots, totals)
        args = (dy, x, dx, weight, mean, rstd, layout, places, blocks, totals, room, past)
        parallel_for(_some_grads, units * blocks, threads, args)
    count, across, place = dweight.size, pieces // layout[0], places[1]
    weights, biases = pointer(sums, 0), pointer(sums, count)
    for c in range(2 * count):
        weights[c] = 0.0
    for unit in range(units):
        at, to = unit * pieces, (unit % place[0]) * place[1]
        for segment in range(layout[0]):
            weights[to + segment * place[2]] += dots[at + segment * across, 1]
            biases[to + segment * place[2]] += dots[at + segment * across, 0]
    for c in range(count):
        dweight[c], dbias[c] = weights[c], biases[c]
