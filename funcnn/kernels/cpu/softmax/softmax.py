"""Softmax and log-softmax along the middle axis of (O, N, I) arrays, with their gradients.

Three passes over a row of N: its maximum, the exponentials below it and their sum, the result. Taking the maximum out
keeps exponentials at most 1. Blocks of up to ``cut[1]`` columns go through the passes together, so that every loop has
unit stride, and four rows at a time are added to sums in float64. Along the last axis (I = 1) rows are contiguous: long
ones go through the passes one by one (``cut[1]`` = 1), and their sums run in vectors of the data's type over at most 2048
elements, in float64 across. Of short rows a vector would hold little more than one, so ``cut[1]`` of them are transposed into
columns of scratch, and the results back; the gradient, which has fewer exponentials or none, leaves them as they are. One
exponential an element, 1 read and 1 write: a row stays in the cache.

A row of minus infinities, and one with plus infinity or NaN, gives NaN, as in PyTorch. Empty rows are left alone.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.softmax.columns import softmax_columns, softmax_columns_grad
from funcnn.kernels.cpu.softmax.rows import GROUP_ROWS, log_softmax_rows, softmax_row, softmax_row_grad
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.transpose import transpose_narrow


# ---- chunks: cut = (units in a chunk, columns or short rows in a unit); a unit is a block of them, or a long row ----------------
def room_for(shape: tuple[int, int, int], cut: tuple[int, int], columns: int, blocks: int) -> int:
    """Counts the scratch elements of each worker: some for each column of a unit, and blocks of rows that are transposed."""
    rows = shape[2] == 1
    return GROUP_ROWS if rows and cut[1] == 1 else int(cut[1] * (columns + blocks * shape[1] * rows))


def sums_for(cut: tuple[int, int]) -> int:
    """Counts the float64 sums of each worker."""
    return max(cut[1], GROUP_ROWS)


@device_function
def is_turned(x, cut):
    """Whether rows are transposed into columns."""
    return x.shape[2] == 1 and cut[1] > 1


@device_function
def place(x, unit, cut):
    """Returns the offset of a unit, and how many columns or rows it has."""
    if x.shape[2] == 1:
        row = unit * cut[1]
        return row * x.shape[1], min(cut[1], x.shape[0] - row)
    blocks = (x.shape[2] + cut[1] - 1) // cut[1]
    column = unit % blocks * cut[1]
    return unit // blocks * x.shape[1] * x.shape[2] + column, min(cut[1], x.shape[2] - column)


@device_function
def units(x, cut):
    """Counts the units."""
    if x.shape[2] == 1:
        return (x.shape[0] + cut[1] - 1) // cut[1]
    return x.shape[0] * ((x.shape[2] + cut[1] - 1) // cut[1])


@device_function
def _softmax(chunk, worker, x, y, logarithm, room, totals, cut):
    n, inner, block = x.shape[1], x.shape[2], x.shape[1] * cut[1]
    turned, first, last = is_turned(x, cut), chunk * cut[0], min((chunk + 1) * cut[0], units(x, cut))
    m = pointer(totals, worker * max(cut[1], GROUP_ROWS))
    if inner == 1 and not turned and logarithm:
        log_softmax_rows(x, y, first, last, n, pointer(room, worker * GROUP_ROWS), m)
        return
    for unit in range(first, last):
        start, width = place(x, unit, cut)
        p, q = pointer(x, start), pointer(y, start)
        if turned:
            t = pointer(room, worker * 2 * (cut[1] + block))
            u = shift(t, 2 * cut[1])
            v = shift(u, block)
            transpose_narrow(p, n, u, cut[1], width, n)
            softmax_columns(u, v, cut[1], n, width, logarithm, t, m)
            transpose_narrow(v, cut[1], q, n, n, width)
        elif inner == 1:
            softmax_row(x, y, start, n)
        else:
            softmax_columns(p, q, inner, n, width, logarithm, pointer(room, worker * 2 * cut[1]), m)


@kernel(
    touches={
        "y": lambda x: x.size,
        "room": lambda x, cut, threads: room_for(x.shape, cut, 2, 2) * threads,
        "totals": lambda cut, threads: threads * sums_for(cut),
    }
)
def softmax_forward(x, y, logarithm, room, totals, cut, threads):
    """Writes y = exp(x - max) / sum(exp(x - max)) along axis 1, or its logarithm. room and totals: scratch of the workers."""
    chunks = (units(x, cut) + cut[0] - 1) // cut[0]
    parallel_for(_softmax, chunks, threads, (x, y, logarithm, room, totals, cut))


@device_function
def _softmax_grad(chunk, worker, dy, y, dx, logarithm, tops, totals, cut):
    n, inner = y.shape[1], y.shape[2]
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], units(y, cut))):
        start, width = place(y, unit, cut)
        if inner == 1:
            softmax_row_grad(dy, y, dx, start, n, logarithm)
        else:
            g, p, q = pointer(dy, start), pointer(y, start), pointer(dx, start)
            t, m = pointer(tops, worker * cut[1]), pointer(totals, worker * cut[1])
            softmax_columns_grad(g, p, q, inner, n, width, logarithm, t, m)


@kernel(
    touches={
        "dy": lambda y: y.size,
        "dx": lambda y: y.size,
        "tops": lambda cut, threads: threads * cut[1],
        "totals": lambda cut, threads: threads * cut[1],
    }
)
def softmax_grad(dy, y, dx, logarithm, tops, totals, cut, threads):
    """Writes dx = y * (dy - sum(dy * y)), or for the logarithm dx = dy - exp(y) * sum(dy). Rows go one by one (cut[1] = 1).

    tops, totals (threads * cut[1]): scratch.
    """
    chunks = (units(y, cut) + cut[0] - 1) // cut[0]
    parallel_for(_softmax_grad, chunks, threads, (dy, y, dx, logarithm, tops, totals, cut))
