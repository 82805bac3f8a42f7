"""Max pooling over three spatial dimensions of (M, D, H, W) images, M being batch times channels.

A row of outputs is computed at once: its taps become a list of offsets into the image, and blocks of neighbouring windows
go through the list with maximum and index in vector registers; windows over the border go alone. So an image is read
once from memory and each output written once. The index is flat in the input image; the gradient scatters to it, and the
scatter's transpose gathers. With ceil_mode the caller gives a larger output, and windows run over the right edge: they see
what is there.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.lanes import FEW, LANES, largest, largest_few, largest_few_of_even, largest_of_even
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.vector import pointer, shift


@device_function
def tap_offsets(offsets, o, p, D, H, W, size, stride, padding, dilation):
    """Where the taps of the window at (o, p, 0) lie in the image, those in its rows; returns how many. Columns may lie outside."""
    taps = 0
    for a in range(size[0]):
        d = o * stride[0] - padding[0] + a * dilation[0]
        if d < 0 or d >= D:
            continue
        for i in range(size[1]):
            h = p * stride[1] - padding[1] + i * dilation[1]
            if h < 0 or h >= H:
                continue
            for j in range(size[2]):
                offsets[taps] = (d * H + h) * W + j * dilation[2] - padding[2]
                taps += 1
    return taps


@device_function
def whole_windows(Q, W, size, stride, padding, dilation):
    """From which to before which output column windows lie inside the image; none where blocks would not serve them."""
    left = (padding + stride - 1) // stride
    right = min((W - 1 - (size - 1) * dilation + padding) // stride + 1, Q)
    if stride > 2 or right - left < FEW:
        return 0, 0
    return left, right


@kernel
def max_pool(x, y, argmax, size, stride, padding, dilation, rows, threads):
    """y = the largest of each window, argmax = its flat index; the first of equals, the last NaN; padding never wins.
    A dilated window that touches nothing but padding gives -inf and index -1, which the two kernels below pass over.
    ``rows`` output rows make a chunk."""
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(max_pool_rows, chunks, threads, (x, y, argmax, size, stride, padding, dilation, rows))


@device_function
def max_pool_rows(chunk, worker, x, y, argmax, size, stride, padding, dilation, rows):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``max_pool``, counted over images, depths and heights."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    left, right = whole_windows(Q, W, size[2], stride[2], padding[2], dilation[2])
    table = np.empty(size[0] * size[1] * size[2], np.int64)
    offsets = pointer(table, 0)
    lowest = x.dtype.type(-np.inf)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        image, best, where = pointer(x, m * D * H * W), pointer(y, row * Q), pointer(argmax, row * Q)
        taps = tap_offsets(offsets, o, p, D, H, W, size, stride, padding, dilation)
        for q in range(left):
            largest_at(image, offsets, taps, q, W, size[2], stride[2], padding[2], dilation[2], lowest, best, where)
        if right > left:
            if taps == 0:
                for q in range(left, right):
                    best[q], where[q] = -np.inf, -1
            else:
                largest_in_row(image, offsets, taps, left, right, stride[2], best, where)
        for q in range(right, Q):
            largest_at(image, offsets, taps, q, W, size[2], stride[2], padding[2], dilation[2], lowest, best, where)


@device_function
def largest_at(image, offsets, taps, q, W, size, stride, padding, dilation, lowest, best, where):
    """One output, whose window may run over the left and right edges."""
    value, place = lowest, -1
    column = q * stride
    j = 0
    for t in range(taps):
        w = column - padding + j * dilation
        j = j + 1 if j + 1 < size else 0
        if w >= 0 and w < W:
            new = image[offsets[t] + column]
            if place < 0 or new > value or new != new:
                value, place = new, offsets[t] + column
    best[q], where[q] = value, place


@device_function
def largest_in_row(image, offsets, taps, left, right, step, best, where):
    """Outputs [left, right), at least ``FEW``, in blocks; the last one overlaps its neighbour."""
    lanes = LANES if right - left >= LANES else FEW
    for block in range((right - left + lanes - 1) // lanes):
        q = min(left + block * lanes, right - lanes)
        if lanes == LANES:
            if step == 1:
                largest(image, offsets, taps, q, shift(best, q), shift(where, q))
            else:
                largest_of_even(image, offsets, taps, q, shift(best, q), shift(where, q))
        elif step == 1:
            largest_few(image, offsets, taps, q, shift(best, q), shift(where, q))
        else:
            largest_few_of_even(image, offsets, taps, q, shift(best, q), shift(where, q))


@kernel
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
    table, values, places = (
        np.empty(D * H * (W // FEW + 1), np.int64),
        np.empty(LANES, x.dtype),
        np.empty(LANES, np.int64),
    )
    offsets, lane_best, lane_where = pointer(table, 0), pointer(values, 0), pointer(places, 0)
    lowest = x.dtype.type(-np.inf)
    for row in range(chunk * rows, min((chunk + 1) * rows, M * O * P)):
        m, plane_row = divmod(row, O * P)
        o, p = divmod(plane_row, P)
        t = m if bounds.shape[0] > 1 else 0
        image, best, where = pointer(x, m * D * H * W), pointer(y, row * Q), pointer(argmax, row * Q)
        d0, d1, h0, h1 = bounds[t, o, 0], bounds[t, o, 1], bounds[t, O + p, 0], bounds[t, O + p, 1]
        for q in range(Q):
            w0, w1 = bounds[t, O + P + q, 0], bounds[t, O + P + q, 1]
            runs, length = (1, (h1 - h0) * W) if w1 - w0 == W else (h1 - h0, w1 - w0)  # whole rows follow one another
            lanes = LANES if length >= LANES else FEW if length >= FEW else 1
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
                largest(image, offsets, taps, 0, lane_best, lane_where)
            elif lanes == FEW:
                largest_few(image, offsets, taps, 0, lane_best, lane_where)
            else:
                largest_at(image, offsets, taps, 0, 1, 1, 1, 0, 0, lowest, lane_best, lane_where)
            best[q], where[q] = winning_lane(lane_best, lane_where, lanes)


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


@kernel
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


@kernel
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


@kernel
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
