"""Max pooling where nobody asks for the places: rows first, then columns, with half the comparisons and fewer bytes.

``max.py`` says how windows are served. Here the largest of the rows under a window is taken while they are split, as
``avg.py`` sums them; ties need no order. A block of rows with NaN among them goes window by window.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.pool.rows import deliver, fill, largest_by_phase, lines_under, three_from
from funcnn.kernels.cpu.pool.taps import window_peaks
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.streaming import to_line

HEAD_ENTRIES = 17  # of the table in front of its taps
BLOCK_ROWS = 4  # that are split before the first is read again, so that no load waits for a store just made


@kernel(
    touches={
        "x": lambda x, y: x.size // max(len(x), 1) * len(y),
        "table": lambda table: HEAD_ENTRIES + int(table[2]),
        "floats": lambda table, threads: threads * int(table[15]),
        "ints": lambda table, threads: threads * int(table[16]),
    }
)
def max_values(x, y, table, floats, ints, rows, past, threads):
    """Writes y = the largest of each window, NaN if there is one, -inf where there is only padding.

    table: size, stride, padding and dilation; margin and distance of phases of a row by phase, slack; elements of ``floats`` and
    ``ints`` for each worker; where the taps of the first window lie in a row by phase. ``rows`` output rows make a chunk;
    ``past``: y is written past the cache.
    """
    M, O, P, _ = y.shape
    chunks = (M * O * P + rows - 1) // rows
    parallel_for(max_values_rows, chunks, threads, (x, y, table, floats, ints, rows, past))


@device_function
def max_values_rows(chunk, worker, x, y, table, floats, ints, rows, past):
    """Works on output rows [chunk * rows, (chunk + 1) * rows) of ``max_values``, counted over images, depths and heights."""
    M, O, P, Q = y.shape
    _, D, H, W = x.shape
    size, stride, padding, dilation = (
        three_from(table, 0),
        three_from(table, 3),
        three_from(table, 6),
        three_from(table, 9),
    )
    (margin, apart, more), step, lowest = three_from(table, 12), stride[2], x.dtype.type(-np.inf)
    peaks, used = pointer(floats, worker * table[15]), BLOCK_ROWS * step * apart + more
    tops, line = shift(peaks, used), shift(peaks, used + BLOCK_ROWS * Q + more)
    lines, columns, aligned = pointer(ints, worker * table[16]), pointer(table, HEAD_ENTRIES), to_line(peaks)
    fill(peaks, lowest, used)
    last = min((chunk + 1) * rows, M * O * P)
    for block in range(chunk * rows, last, BLOCK_ROWS):
        count, nan = min(BLOCK_ROWS, last - block), False
        for u in range(count):
            m, plane_row = divmod(block + u, O * P)
            o, p = divmod(plane_row, P)
            taps = lines_under(lines, o, p, x, size, stride, padding, dilation)
            image, start = pointer(x, m * D * H * W), aligned + u * step * apart
            if taps > 0:
                nan |= largest_by_phase(
                    image, lines, image, taps, W, step, shift(peaks, start + margin), apart, lowest, line
                )
            else:
                fill(shift(peaks, start), lowest, step * apart)
        for u in range(count):
            if nan:
                m, plane_row = divmod(block + u, O * P)
                o, p = divmod(plane_row, P)
                taps = lines_under(lines, o, p, x, size, stride, padding, dilation)
                image, out = pointer(x, m * D * H * W), shift(tops, u * Q)
                peaks_or_nan(image, lines, taps, W, Q, size[2], step, padding[2], dilation[2], lowest, out)
            else:
                window_peaks(shift(peaks, aligned + u * step * apart), columns, size[2], Q, shift(tops, u * Q))
        deliver(pointer(y, block * Q), tops, count * Q, past)


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
