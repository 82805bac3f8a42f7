"""Resampling of planes by tables: every output row is a weighted sum of input rows, every output column of columns.

The caller gives, for each axis, ``index`` and ``weight`` tap-major, (taps, outputs) flat; an index of -1 is an absent tap.
Nearest, linear, cubic and antialiased interpolation are such tables, and so are their transposes, the gradients.

The sum over rows runs along a row and vectorises; the sum over columns gathers. So columns are done on the fewer rows: when
the number of rows grows, input rows are widened once each into a ring of the few rows that one output row needs (first
level cache), then combined; when it shrinks, rows are combined first. x and y are passed once. A chunk is a run of planes, or
of output rows in a large plane; ``taps`` of 0 leaves the columns as they are.
"""

from __future__ import annotations

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.vector import pointer, shift


@device_function
def add_rows(source, ring, pitch, index, weight, taps, rows, p, out, width):
    """out = the weighted sum of the rows that row p is made of; row r of the source is in slot ``r % ring``."""
    if taps == 1 and index[p] >= 0:
        a, u = shift(source, index[p] % ring * pitch), weight[p]
        for i in range(width):
            out[i] = u * a[i]
    elif taps == 2 and index[p] >= 0 and index[rows + p] >= 0:
        a, u = shift(source, index[p] % ring * pitch), weight[p]
        b, v = shift(source, index[rows + p] % ring * pitch), weight[rows + p]
        for i in range(width):
            out[i] = u * a[i] + v * b[i]
    elif taps == 4 and index[p] >= 0 and index[3 * rows + p] >= 0:  # taps fill up from the first
        a, u = shift(source, index[p] % ring * pitch), weight[p]
        b, v = shift(source, index[rows + p] % ring * pitch), weight[rows + p]
        c, w = shift(source, index[2 * rows + p] % ring * pitch), weight[2 * rows + p]
        d, z = shift(source, index[3 * rows + p] % ring * pitch), weight[3 * rows + p]
        for i in range(width):
            out[i] = (u * a[i] + v * b[i]) + (w * c[i] + z * d[i])
    else:
        zero = weight.dtype.type(0)
        for i in range(width):
            out[i] = zero
        for t in range(taps):
            r = index[t * rows + p]
            if r >= 0:
                a, u = shift(source, r % ring * pitch), weight[t * rows + p]
                for i in range(width):
                    out[i] += u * a[i]


@device_function
def add_columns(source, index, weight, taps, full, out, width):
    """out[q] = the weighted sum of the numbers of a row that column q is made of; ``full``: no tap is absent."""
    i, u = pointer(index, 0), pointer(weight, 0)
    if full and taps == 1:
        for q in range(width):
            out[q] = u[q] * source[i[q]]
    elif full and taps == 2:
        j, v = pointer(index, width), pointer(weight, width)
        for q in range(width):
            out[q] = u[q] * source[i[q]] + v[q] * source[j[q]]
    elif full and taps == 4:
        j, v = pointer(index, width), pointer(weight, width)
        k, w = pointer(index, 2 * width), pointer(weight, 2 * width)
        m, z = pointer(index, 3 * width), pointer(weight, 3 * width)
        for q in range(width):
            out[q] = (u[q] * source[i[q]] + v[q] * source[j[q]]) + (w[q] * source[k[q]] + z[q] * source[m[q]])
    else:
        zero = weight.dtype.type(0)
        for q in range(width):
            out[q] = zero
        for t in range(taps):
            i, u = pointer(index, t * width), pointer(weight, t * width)
            for q in range(width):
                out[q] += u[q] * source[i[q]] if i[q] >= 0 else zero


@device_function
def resize_chunk(chunk, worker, x, y, rows, columns, sizes, scratch, marks, plan):
    """Some planes, or some rows of one plane."""
    row_index, row_weight, row_taps = rows
    column_index, column_weight, column_taps, full = columns
    H, W, P, Q = sizes
    ring, planes, block = plan
    blocks = -(-P // block)
    first, p0 = chunk // blocks * planes, chunk % blocks * block
    p1 = min(p0 + block, P)
    room = pointer(scratch, worker * scratch.shape[1])
    mark = pointer(marks, worker * marks.shape[1])
    for m in range(first, min(first + planes, x.size // (H * W))):
        image, result = pointer(x, m * H * W), pointer(y, m * P * Q)
        for s in range(ring):
            mark[s] = -1
        for p in range(p0, p1):
            out = shift(result, p * Q)
            if column_taps == 0:
                add_rows(image, H, W, row_index, row_weight, row_taps, P, p, out, W)
            elif ring == 0:
                add_rows(image, H, W, row_index, row_weight, row_taps, P, p, room, W)
                add_columns(room, column_index, column_weight, column_taps, full, out, Q)
            else:
                for t in range(row_taps):
                    r = row_index[t * P + p]
                    if r >= 0 and mark[r % ring] != r:
                        mark[r % ring] = r
                        wide = shift(room, r % ring * Q)
                        add_columns(shift(image, r * W), column_index, column_weight, column_taps, full, wide, Q)
                add_rows(room, ring, Q, row_index, row_weight, row_taps, P, p, out, Q)


@kernel(
    touches={
        "y": lambda x, sizes: x.size // (sizes[0] * sizes[1]) * sizes[2] * sizes[3],
        "scratch": lambda columns, sizes, plan, threads: (
            threads * max(plan[0] * sizes[3], 0 if plan[0] or columns[2] == 0 else sizes[1])
        ),
        "marks": lambda plan, threads: threads * plan[0],
    }
)
def resize(x, y, rows, columns, sizes, scratch, marks, plan, threads):
    """y = the planes of x (M, H, W) resampled to (M, P, Q); both flat.

    rows: (index, weight, taps) of axis H to P; columns: the same of W to Q, and whether no tap is absent.
    plan: (ring, planes, block): rows kept of one plane, 0 for combining rows first; planes, or rows of a plane, a chunk.
    scratch (threads, ring * Q, or W) and marks (threads, ring): room for each worker.
    """
    H, W = sizes[:2]
    chunks = -(-(x.size // (H * W)) // plan[1]) * -(-sizes[2] // plan[2])
    parallel_for(resize_chunk, chunks, threads, (x, y, rows, columns, sizes, scratch, marks, plan))
