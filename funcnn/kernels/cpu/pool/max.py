"""Max pooling over three spatial dimensions of (M, D, H, W) images, M being batch times channels.

A row of outputs is computed at once: the rows under its windows are split by phase (``rows.py``), its taps become a
list of offsets there, and neighbouring windows go through the list with maximum and index in vector registers. A row by phase
is kept for the next output row. Rows with NaN among them go window by window: NaN wins, which costs twice the comparisons.
So an image is read once from memory and each output written once. The index is flat in the input image; the gradient
scatters to it (``places.py``). With ceil_mode the caller gives a larger output, and windows run over
the right edge: they see what is there.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.pool.rows import deliver, fill, sum_by_phase, three_from
from funcnn.kernels.cpu.pool.taps import window_maxima
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.lanes import FEW_LANES, LANES, largest, largest_few
from funcnn.kernels.cpu.vector.streaming import to_line

HEAD_ENTRIES = 18  # of the table in front of its taps
# Output rows: what is split for them is written long before it is read, so that no load waits for a store.
BLOCK_ROWS = 4


@kernel(
    touches={
        "x": lambda x, y: x.size // max(len(x), 1) * len(y),
        "argmax": lambda y: y.size,
        "table": lambda table: HEAD_ENTRIES + 2 * int(table[0] * table[1] * table[2]) + 1,
        "firsts": lambda y, table: 2 * (y.shape[3] + int(table[15])),
        "floats": lambda table, threads: threads * int(table[16]),
        "places": lambda table, threads: threads * int(table[17]),
    }
)
def max_pool(x, y, argmax, table, firsts, floats, places, rows, past, threads):
    """Writes y = the largest of each window, argmax = its flat index; the first of equals, the last NaN; padding never wins.
    A dilated window that touches nothing but padding gives -inf and index -1, which ``places.py`` passes over.

    table: size, stride, padding and dilation; margin, distance of phases and slots of a row by phase, slack; elements of
    ``floats`` and ``places`` for each worker; the taps of a block's first window among the rows by phase; their flat indices,
    counted from the window's own corner; a 0. firsts: the first column of each window of a row that is inside the image, -1
    where none is, then -1 as often, each with slack. ``rows`` output rows make a chunk; ``past``: outputs are written past the
    cache.
    """
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(max_pool_rows, chunks, threads, (x, y, argmax, table, firsts, floats, places, rows, past))


@device_function
def max_pool_rows(chunk, worker, x, y, argmax, table, firsts, floats, places, rows, past):
    """Works on output rows [chunk * rows, (chunk + 1) * rows) of ``max_pool``, counted over images, depths and heights."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    size, stride, padding, dilation = (
        three_from(table, 0),
        three_from(table, 3),
        three_from(table, 6),
        three_from(table, 9),
    )
    (margin, apart, slots), more, each = three_from(table, 12), table[15], table[16]
    step, lowest, taps = stride[2], x.dtype.type(-np.inf), size[0] * size[1] * size[2]
    reach, below = (size[1] - 1) * dilation[1], stride[1] * step * apart  # from one output row's rows to the next's
    phase_rows, used = pointer(floats, worker * each), size[0] * slots * step * apart + more
    values, line, one = (
        shift(phase_rows, used),
        shift(phase_rows, used + BLOCK_ROWS * Q + more),
        shift(phase_rows, each - 1),
    )
    found, nothing = pointer(places, worker * table[17]), pointer(table, HEAD_ENTRIES + 2 * taps)
    offsets, marks = pointer(table, HEAD_ENTRIES), pointer(table, HEAD_ENTRIES + taps)
    fill(phase_rows, lowest, used)
    one[0] = 1
    first, last = chunk * rows, min((chunk + 1) * rows, M * O * P)
    aligned, row = to_line(phase_rows), first
    while row < last:
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        count = min(BLOCK_ROWS, last - row, P - p)
        depth, height = o * stride[0] - padding[0], p * stride[1] - padding[1]
        nan = False
        for a in range(size[0]):
            d = depth + a * dilation[0]
            for t in range((count - 1) * stride[1] + reach + 1):
                target = shift(phase_rows, aligned + (a * slots + t) * step * apart)
                if d < 0 or d >= D or height + t < 0 or height + t >= H:
                    fill(target, lowest, step * apart)
                elif t % stride[1] <= reach:
                    source = pointer(x, ((m * D + d) * H + height + t) * W)
                    nan |= sum_by_phase(source, nothing, one, 1, W, step, shift(target, margin), apart, lowest, line)
        d = first_inside(depth, size[0], dilation[0], D)
        for u in range(count):
            h = first_inside(height + u * stride[1], size[1], dilation[1], H)
            top, base = (d * H + h) * W, (depth * H + height + u * stride[1]) * W
            lines, best, where = shift(phase_rows, aligned + u * below), shift(values, u * Q), shift(found, u * Q)
            starts = pointer(firsts, 0 if d >= 0 and h >= 0 else Q + more)
            if nan:
                maxima_or_nan(lines, offsets, marks, taps, Q, step, starts, top, base, lowest, best, where)
            else:
                window_maxima(lines, offsets, marks, taps, Q, step, starts, top, base, best, where)
        deliver(pointer(y, row * Q), values, count * Q, past)
        deliver(pointer(argmax, row * Q), found, count * Q, past)
        row += count


@device_function
def first_inside(start, size, dilation, length):
    """Returns the first of start, start + dilation, ... (``size`` elements) that is from 0 to length - 1; -1 if none is."""
    last = start + (size - 1) * dilation
    if start < 0:
        start += (dilation - 1 - start) // dilation * dilation
    return start if start < length and start <= last else -1


@device_function
def maxima_or_nan(lines, offsets, marks, taps, count, step, firsts, top, base, lowest, best, where):
    """``window_maxima`` where there may be NaN, of which the last one wins."""
    for q in range(count):
        value, place = lowest, firsts[q] + top if firsts[q] >= 0 else -1
        for t in range(taps):
            new = lines[offsets[t] + q]
            if new > value or new != new:
                value, place = new, marks[t] + base + step * q
        best[q], where[q] = value, place


@device_function
def largest_near(image, depths, heights, columns, H, W, lowest):
    """Returns the largest number of a window narrower than vectors, the last NaN, and its index; -1 for a window without pixels."""
    value, place = lowest, -1
    for d in range(depths[0], depths[1]):
        for h in range(heights[0], heights[1]):
            for w in range(columns[0], columns[1]):
                at = (d * H + h) * W + w
                new = image[at]
                take = (new > value) | (new != new) | (place < 0)
                value, place = new if take else value, at if take else place
    return value, place


def pieces_most(shape):
    """Returns the places that ``window_max`` needs for images of this shape: LANES, and one for every piece of a window."""
    return LANES + shape[1] * shape[2] * (shape[3] // FEW_LANES + 1)


@kernel(
    touches={
        "x": lambda x, y: x.size // max(len(x), 1) * len(y),
        "argmax": lambda y, noted: noted * y.size,
        "bounds": lambda y, bounds: 2 * len(bounds) * sum(y.shape[1:]),
        "values": lambda threads: threads * 2 * LANES,
        "places": lambda x, each, threads: threads * max(each, pieces_most(x.shape)),
    }
)
def window_max(x, y, argmax, noted, bounds, values, places, each, rows, threads):
    """``max_pool`` over windows of any bounds: bounds[t] (O + P + Q, 2) gives start and end along D, H and W, t being the
    image or 0 for all. noted: whether the places are written to ``argmax``.

    values, places: for each worker 2 LANES elements, and ``each`` (``pieces_most``).
    """
    M, O, P, _ = y.shape
    parallel_for(
        window_max_rows,
        (M * O * P + rows - 1) // rows,
        threads,
        (x, y, argmax, noted, bounds, values, places, each, rows),
    )


@device_function
def window_max_rows(chunk, worker, x, y, argmax, noted, bounds, values, places, each, rows):
    """Works on output rows [chunk * rows, (chunk + 1) * rows) of ``window_max``."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    lane_best, lane_where = pointer(values, worker * 2 * LANES), pointer(places, worker * each)
    offsets, lowest = shift(lane_where, LANES), x.dtype.type(-np.inf)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        t = m if bounds.shape[0] > 1 else 0
        image, best, where = pointer(x, m * D * H * W), pointer(y, row * Q), pointer(argmax, row * Q)
        d0, d1, h0, h1 = bounds[t, o, 0], bounds[t, o, 1], bounds[t, O + p, 0], bounds[t, O + p, 1]
        for q in range(Q):
            w0, w1 = bounds[t, O + P + q, 0], bounds[t, O + P + q, 1]
            runs, length = (1, (h1 - h0) * W) if w1 - w0 == W else (h1 - h0, w1 - w0)  # whole rows follow one another
            if length < FEW_LANES:
                best[q], place = largest_near(image, (d0, d1), (h0, h0 + runs), (w0, w0 + length), H, W, lowest)
                if noted:
                    where[q] = place
                continue
            lanes = LANES if length >= LANES else FEW_LANES
            taps = 0
            for d in range(d0, d1):
                for run in range(runs):
                    first = (d * H + h0 + run) * W + w0
                    for block in range(0, length, lanes):
                        offsets[taps] = first + min(block, length - lanes)
                        taps += 1
            if taps == 0:
                best[q] = lowest
                if noted:
                    where[q] = -1
                continue
            if lanes == LANES:
                largest(image, offsets, taps, lane_best, lane_where)
            else:
                largest_few(image, offsets, taps, lane_best, lane_where)
            best[q], place = winning_lane(lane_best, lane_where, lanes)
            if noted:
                where[q] = place


@device_function
def winning_lane(best, where, lanes):
    """Returns the largest value of the lanes and its index: of equals the first in the image, of NaN the last. The lanes are
    halved, without branches, until one is left."""
    while lanes > 1:
        lanes //= 2
        for lane in range(lanes):
            value, place, new, index = best[lane], where[lane], best[lanes + lane], where[lanes + lane]
            nan = (new != new) & ((value == value) | (index > place))
            take = (new > value) | ((new == value) & (index < place)) | nan
            best[lane] = new if take else value
            where[lane] = index if take else place
    return best[0], where[0]
