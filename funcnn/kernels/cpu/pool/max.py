"""Max pooling over three spatial dimensions of (M, D, H, W) images, M being batch times channels.

A row of outputs is computed at once: the rows under its windows are spread by phase (``rows.py``), its taps become a
list of offsets there, and neighbouring windows go through the list with maximum and index in vector registers. A spread row
is kept for the next output row. Rows with NaN among them go window by window: NaN wins, which costs twice the comparisons.
So an image is read once from memory and each output written once. The index is flat in the input image; the gradient
scatters to it, and the scatter's transpose gathers. With ceil_mode the caller gives a larger output, and windows run over
the right edge: they see what is there.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.pool.rows import deliver, line_length, margin_of, phase_length, slack, spread, tap_columns
from funcnn.kernels.cpu.pool.taps import window_maxima
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.lanes import FEW, LANES, largest, largest_few
from funcnn.kernels.cpu.vector.scratch import filled, intact, room
from funcnn.kernels.cpu.vector.streaming import to_line

BLOCK = 4  # output rows: what is spread for them is written long before it is read, so that no load waits for a store


@kernel(touches={"x": lambda x, y: x.size // max(len(x), 1) * len(y), "argmax": lambda y: y.size})
def max_pool(x, y, argmax, size, stride, padding, dilation, rows, past, threads):
    """y = the largest of each window, argmax = its flat index; the first of equals, the last NaN; padding never wins.
    A dilated window that touches nothing but padding gives -inf and index -1, which the two kernels below pass over.
    ``rows`` output rows make a chunk; ``past``: outputs are written past the cache."""
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(max_pool_rows, chunks, threads, (x, y, argmax, size, stride, padding, dilation, rows, past))


@device_function
def max_pool_rows(chunk, worker, x, y, argmax, size, stride, padding, dilation, rows, past):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``max_pool``, counted over images, depths and heights."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    step, more, lowest = stride[2], slack(pointer(x, 0)), x.dtype.type(-np.inf)
    margin = margin_of(pointer(x, 0), padding[2])
    apart = phase_length(pointer(x, 0), Q, W, size[2], step, padding[2], dilation[2])
    reach, below = (size[1] - 1) * dilation[1], stride[1] * step * apart  # from one output row's rows to the next's
    slots = (BLOCK - 1) * stride[1] + reach + 1
    spread_rows, taps = filled(size[0] * slots * step * apart + more, x.dtype, lowest), size[0] * size[1] * size[2]
    tables, weight = filled(2 * taps + size[2] + 1, np.int64, 0), filled(1, x.dtype, 1)
    list_taps(tables, taps, H, W, size, step, padding, dilation, slots, margin, apart)
    firsts = first_columns(argmax, Q, W, size[2], step, padding[2], dilation[2], more)
    first, last = chunk * rows, min((chunk + 1) * rows, M * O * P)
    values, places = room(BLOCK * Q + more, x.dtype), room(BLOCK * Q + more, argmax.dtype)
    line = room(line_length(pointer(x, 0), W, step), x.dtype)
    aligned, row = to_line(pointer(spread_rows, 0)), first
    while row < last:
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        count = min(BLOCK, last - row, P - p)
        depth, height = o * stride[0] - padding[0], p * stride[1] - padding[1]
        nothing, one, nan = pointer(tables, 2 * taps + size[2]), pointer(weight, 0), False
        for a in range(size[0]):
            d = depth + a * dilation[0]
            for t in range((count - 1) * stride[1] + reach + 1):
                target = pointer(spread_rows, aligned + (a * slots + t) * step * apart)
                if d < 0 or d >= D or height + t < 0 or height + t >= H:
                    fill(target, lowest, step * apart)
                elif t % stride[1] <= reach:
                    source = pointer(x, ((m * D + d) * H + height + t) * W)
                    nan |= spread(
                        source, nothing, one, 1, W, step, shift(target, margin), apart, lowest, pointer(line, 0)
                    )
        d = first_inside(depth, size[0], dilation[0], D)
        for u in range(count):
            h = first_inside(height + u * stride[1], size[1], dilation[1], H)
            top, base = (d * H + h) * W, (depth * H + height + u * stride[1]) * W
            lines, offsets, marks = pointer(spread_rows, aligned + u * below), pointer(tables, 0), pointer(tables, taps)
            best, where = pointer(values, u * Q), pointer(places, u * Q)
            starts = pointer(firsts, 0 if d >= 0 and h >= 0 else Q + more)
            if nan:
                maxima_or_nan(lines, offsets, marks, taps, Q, step, starts, top, base, lowest, best, where)
            else:
                window_maxima(lines, offsets, marks, taps, Q, step, starts, top, base, best, where)
        deliver(pointer(y, row * Q), pointer(values, 0), count * Q, past)
        deliver(pointer(argmax, row * Q), pointer(places, 0), count * Q, past)
        row += count
    intact(spread_rows), intact(tables), intact(weight), intact(firsts), intact(values), intact(places), intact(line)


@device_function
def list_taps(tables, taps, H, W, size, step, padding, dilation, slots, margin, apart):
    """tables: where the taps of a block's first window lie among the spread rows; their flat indices, counted from the
    window's own corner; the taps of one row."""
    columns = pointer(tables, 2 * taps)
    tap_columns(columns, size[2], step, padding[2], dilation[2], margin, apart)
    t = 0
    for a in range(size[0]):
        for i in range(size[1]):
            for j in range(size[2]):
                tables[t] = (a * slots + i * dilation[1]) * step * apart + columns[j]
                tables[taps + t] = (a * dilation[0] * H + i * dilation[1]) * W + j * dilation[2] - padding[2]
                t += 1


@device_function
def first_inside(start, size, dilation, length):
    """The first of start, start + dilation, ... (``size`` numbers) that is from 0 to length - 1; -1 if none is."""
    last = start + (size - 1) * dilation
    if start < 0:
        start += (dilation - 1 - start) // dilation * dilation
    return start if start < length and start <= last else -1


@device_function
def fill(target, value, count):
    """``target[:count] = value``."""
    for i in range(count):
        target[i] = value


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
def first_columns(argmax, Q, W, size, step, padding, dilation, more):
    """The first column of each of a row's windows that is inside the image, -1 where none is; and -1 as often again, for
    rows without any. ``more`` numbers follow both."""
    firsts = filled(2 * (Q + more), argmax.dtype, -1)
    for q in range(Q):
        firsts[q] = first_inside(q * step - padding, size, dilation, W)
    return firsts


@device_function
def largest_near(image, depths, heights, columns, H, W, lowest):
    """The largest number of a window narrower than vectors, the last NaN, and its index; -1 for a window without pixels."""
    value, place = lowest, -1
    for d in range(depths[0], depths[1]):
        for h in range(heights[0], heights[1]):
            for w in range(columns[0], columns[1]):
                at = (d * H + h) * W + w
                new = image[at]
                take = (new > value) | (new != new) | (place < 0)
                value, place = new if take else value, at if take else place
    return value, place


@kernel(
    touches={
        "x": lambda x, y: x.size // max(len(x), 1) * len(y),
        "argmax": lambda y: y.size,
        "bounds": lambda y, bounds: 2 * len(bounds) * sum(y.shape[1:]),
    }
)
def window_max(x, y, argmax, bounds, rows, threads):
    """``max_pool`` over windows of any bounds: bounds[t] (O + P + Q, 2) gives start and end along D, H and W, t being the
    image or 0 for all."""
    M, O, P, _ = y.shape
    parallel_for(window_max_rows, (M * O * P + rows - 1) // rows, threads, (x, y, argmax, bounds, rows))


@device_function
def window_max_rows(chunk, worker, x, y, argmax, bounds, rows):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``window_max``."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    table = room(D * H * (W // FEW + 1), np.int64)
    values, places = room(LANES, x.dtype), room(LANES, np.int64)
    lowest = x.dtype.type(-np.inf)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        offsets, lane_best, lane_where = pointer(table, 0), pointer(values, 0), pointer(places, 0)
        t = m if bounds.shape[0] > 1 else 0
        image, best, where = pointer(x, m * D * H * W), pointer(y, row * Q), pointer(argmax, row * Q)
        d0, d1, h0, h1 = bounds[t, o, 0], bounds[t, o, 1], bounds[t, O + p, 0], bounds[t, O + p, 1]
        for q in range(Q):
            w0, w1 = bounds[t, O + P + q, 0], bounds[t, O + P + q, 1]
            runs, length = (1, (h1 - h0) * W) if w1 - w0 == W else (h1 - h0, w1 - w0)  # whole rows follow one another
            if length < FEW:
                best[q], where[q] = largest_near(image, (d0, d1), (h0, h0 + runs), (w0, w0 + length), H, W, lowest)
                continue
            lanes = LANES if length >= LANES else FEW
            taps = 0
            for d in range(d0, d1):
                for run in range(runs):
                    first = (d * H + h0 + run) * W + w0
                    for block in range(0, length, lanes):
                        offsets[taps] = first + min(block, length - lanes)
                        taps += 1
            if taps == 0:
                best[q], where[q] = lowest, -1
                continue
            if lanes == LANES:
                largest(image, offsets, taps, lane_best, lane_where)
            else:
                largest_few(image, offsets, taps, lane_best, lane_where)
            best[q], where[q] = winning_lane(lane_best, lane_where, lanes)
    intact(table), intact(values), intact(places)


@device_function
def winning_lane(best, where, lanes):
    """The largest value of the lanes and its index: of equals the first in the image, of NaN the last. The lanes are
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


@kernel(touches={"argmax": lambda dy: dy.size, "dx": lambda dy, dx: len(dy) * dx.shape[1]})
def pool_scatter(dy, argmax, dx, images, threads):
    """dx = 0, then dx[m].flat[argmax] += dy: the gradient of ``max_pool``. A chunk is ``images`` images."""
    parallel_for(scatter_images, (dy.shape[0] + images - 1) // images, threads, (dy, argmax, dx, images))


@device_function
def scatter_images(chunk, worker, dy, argmax, dx, images):
    """The images of a chunk of ``pool_scatter``."""
    M, count = dy.shape
    size = dx.shape[1]
    for m in range(chunk * images, min((chunk + 1) * images, M)):
        source, index, out = pointer(dy, m * count), pointer(argmax, m * count), pointer(dx, m * size)
        for w in range(size):
            out[w] = 0
        for q in range(count):
            if index[q] >= 0:
                out[index[q]] += source[q]


@kernel(touches={"argmax": lambda y: y.size, "y": lambda x, y: len(x) * y.shape[1]})
def pool_gather(x, argmax, y, images, threads):
    """y = x[m].flat[argmax]: the transpose of ``pool_scatter``. A chunk is ``images`` images."""
    parallel_for(gather_images, (x.shape[0] + images - 1) // images, threads, (x, argmax, y, images))


@device_function
def gather_images(chunk, worker, x, argmax, y, images):
    """The images of a chunk of ``pool_gather``."""
    M, size = x.shape
    count = y.shape[1]
    nothing = x.dtype.type(0)
    for m in range(chunk * images, min((chunk + 1) * images, M)):
        source, index, out = pointer(x, m * size), pointer(argmax, m * count), pointer(y, m * count)
        for q in range(count):
            out[q] = source[index[q]] if index[q] >= 0 else nothing


@kernel(touches={"argmax": lambda x: x.size, "y": lambda x, y: len(x) * y.shape[1]})
def max_unpool(x, argmax, y, images, threads):
    """y = 0, then y[m].flat[argmax] = x, the last of several with one index. A chunk is ``images`` images."""
    parallel_for(place_images, (x.shape[0] + images - 1) // images, threads, (x, argmax, y, images))


@device_function
def place_images(chunk, worker, x, argmax, y, images):
    """The images of a chunk of ``max_unpool``."""
    M, count = x.shape
    size = y.shape[1]
    for m in range(chunk * images, min((chunk + 1) * images, M)):
        source, index, out = pointer(x, m * count), pointer(argmax, m * count), pointer(y, m * size)
        for w in range(size):
            out[w] = 0
        for q in range(count):
            out[index[q]] = source[q]
