"""Max pooling where nobody asks for the places: rows first, then columns, with half the comparisons and fewer bytes.

``max.py`` says how windows are served. Here the largest of the rows under a window is taken while they are spread, as
``avg.py`` sums them; ties need no order. A block of rows with NaN among them goes window by window.
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
    spread_maxima,
    tap_columns,
)
from funcnn.kernels.cpu.pool.taps import window_peaks
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.scratch import filled, intact, room
from funcnn.kernels.cpu.vector.streaming import to_line

BLOCK = 4  # rows that are spread before the first is read again, so that no load waits for a store just made


@kernel(touches={"x": lambda x, y: x.size // max(len(x), 1) * len(y)})
def max_values(x, y, size, stride, padding, dilation, rows, past, threads):
    """y = the largest of each window, NaN if there is one, -inf where there is only padding. ``rows`` output rows make a
    chunk; ``past``: y is written past the cache."""
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(max_values_rows, chunks, threads, (x, y, size, stride, padding, dilation, rows, past))


@device_function
def max_values_rows(chunk, worker, x, y, size, stride, padding, dilation, rows, past):
    """Output rows [chunk * rows, (chunk + 1) * rows) of ``max_values``, counted over images, depths and heights."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    step, more, lowest = stride[2], slack(pointer(x, 0)), x.dtype.type(-np.inf)
    margin = margin_of(pointer(x, 0), padding[2])
    apart = phase_length(pointer(x, 0), Q, W, size[2], step, padding[2], dilation[2])
    peaks, tops = filled(BLOCK * step * apart + more, x.dtype, lowest), room(BLOCK * Q + more, x.dtype)
    line = room(line_length(pointer(x, 0), W, step), x.dtype)
    tables, aligned = room(size[0] * size[1] + size[2], np.int64), to_line(pointer(peaks, 0))
    tap_columns(pointer(tables, size[0] * size[1]), size[2], step, padding[2], dilation[2], margin, apart)
    last = min((chunk + 1) * rows, M * O * P)
    for block in range(chunk * rows, last, BLOCK):
        count, nan = min(BLOCK, last - block), False
        lines, columns = pointer(tables, 0), pointer(tables, size[0] * size[1])
        for u in range(count):
            m, plane_row = divmod(block + u, O * P)
            o, p = divmod(plane_row, P)
            taps = lines_under(lines, o, p, x, size, stride, padding, dilation)
            image, row, start = pointer(x, m * D * H * W), pointer(line, 0), aligned + u * step * apart
            if taps > 0:
                nan |= spread_maxima(image, lines, taps, W, step, pointer(peaks, start + margin), apart, lowest, row)
            else:
                peaks[start : start + step * apart] = lowest
        for u in range(count):
            if nan:
                m, plane_row = divmod(block + u, O * P)
                o, p = divmod(plane_row, P)
                taps = lines_under(lines, o, p, x, size, stride, padding, dilation)
                image, out = pointer(x, m * D * H * W), pointer(tops, u * Q)
                peaks_or_nan(image, lines, taps, W, Q, size[2], step, padding[2], dilation[2], lowest, out)
            else:
                window_peaks(pointer(peaks, aligned + u * step * apart), columns, size[2], Q, pointer(tops, u * Q))
        deliver(pointer(y, block * Q), pointer(tops, 0), count * Q, past)
    intact(peaks), intact(tops), intact(tables), intact(line)


@device_function
def peaks_or_nan(image, lines, taps, W, count, size, step, padding, dilation, lowest, out):
    """A row of outputs, window by window."""
    for q in range(count):
        value = lowest
        for t in range(taps):
            for j in range(size):
                w = q * step - padding + j * dilation
                if w >= 0 and w < W:
                    new = image[lines[t] + w]
                    value = new if new > value or new != new else value
        out[q] = value
