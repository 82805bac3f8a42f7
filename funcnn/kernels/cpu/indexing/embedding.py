"""Rows of a table picked by index, and their transpose: rows added into a table of zeros.

The forward copies ``count * D`` numbers, chunks being runs of indices. The gradient writes V * D zeros and adds count * D
numbers. Its chunks are ranges of the vocabulary: each zeroes its own rows while they are in the cache, then reads all
indices (8 bytes each, out of the cache) and adds the rows that are its own, in their order. So no row has two writers, and
the sums do not depend on the number of threads. A negative index means "no row". Both look first whether every index is in
[least, rows), and refuse the first that is not before they touch anything: its position and value stand in the status words.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row


@device_function
def all_inside(index, least, rows, status):
    """Whether every index is in [least, rows); the first that is not goes into the status words, as operand 1."""
    bad = 0
    for m in range(index.size):
        bad += (index[m] < least) | (index[m] >= rows)
    if bad:
        for m in range(index.size):
            if index[m] < least or index[m] >= rows:
                status[0], status[1], status[2], status[3] = 1, 1, m, index[m]
                return False
    return True


@device_function
def gather_chunk(chunk, worker, table, index, out, width, run):
    """Rows ``chunk * run`` and on of the output."""
    for m in range(chunk * run, min((chunk + 1) * run, index.size)):
        v = index[m]
        target = pointer(out, m * width)
        if v < 0:
            clear_row(target, width)
        else:
            copy_row(target, pointer(table, v * width), width)


@kernel(touches={"table": lambda width, rows: rows * width, "out": lambda index, width: index.size * width})
def gather_rows(table, index, out, width, run, least, rows, status, threads):
    """out[m] = table[index[m]], or zeros where index[m] < 0; all flat, rows of ``width``, ``run`` of them a chunk."""
    if all_inside(index, least, rows, status):
        parallel_for(gather_chunk, -(-index.size // run), threads, (table, index, out, width, run))


@device_function
def scatter_chunk(chunk, worker, dy, index, table, width, run, rows):
    """Rows ``chunk * run`` and on of the table."""
    zero = dy.dtype.type(0)
    first, last = chunk * run, min((chunk + 1) * run, rows)
    mine = pointer(table, first * width)
    for i in range((last - first) * width):
        mine[i] = zero
    for m in range(index.size):
        v = index[m]
        if first <= v < last:
            source, target = pointer(dy, m * width), pointer(table, v * width)
            for i in range(width):
                target[i] += source[i]


@kernel(touches={"table": lambda width, rows: rows * width, "dy": lambda index, width: index.size * width})
def scatter_rows(dy, index, table, width, run, least, rows, status, threads):
    """table = 0, then table[index[m]] += dy[m] where index[m] >= 0; ``run`` of its ``rows`` a chunk."""
    if all_inside(index, least, rows, status):
        parallel_for(scatter_chunk, -(-rows // run), threads, (dy, index, table, width, run, rows))
