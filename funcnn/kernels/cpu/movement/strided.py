"""Copies elements from one strided region of memory to another: parts joined, reversed, set into a frame or a diagonal.

Elements are moved as unsigned integers of their size, so one kernel serves every dtype of that size. A chunk is a block of
rows, or a piece of one long row; each element is read and written once.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer

CHUNK_ELEMENTS = 1 << 13


@device_function
def copy_run(x, source, step, out, target, stride, count):
    """Copies ``count`` elements, ``step`` apart from ``source`` on, to places ``stride`` apart from ``target`` on."""
    if step == 1 and stride == 1:
        p, q = pointer(x, source), pointer(out, target)
        for i in range(count):
            q[i] = p[i]
    else:  # a step may be negative
        for i in range(count):
            pointer(out, target + i * stride)[0] = pointer(x, source + i * step)[0]


@device_function
def copy_chunk(chunk, worker, x, first, out, begin, table):
    """Copies one chunk of rows, or a piece of one row."""
    axes = table.size // 3
    last, step, stride = table[axes - 1], table[2 * axes - 1], table[3 * axes - 1]
    pieces = (last + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS
    each = max(1, CHUNK_ELEMENTS // last)
    start = chunk % pieces * CHUNK_ELEMENTS
    count = min(CHUNK_ELEMENTS, last - start)
    rows = 1
    for axis in range(axes - 1):
        rows *= table[axis]
    row = chunk // pieces * each
    for at in range(row, min(row + each, rows)):
        source, target, rest = first + start * step, begin + start * stride, at
        for axis in range(axes - 2, -1, -1):
            i = rest % table[axis]
            rest //= table[axis]
            source += i * table[axes + axis]
            target += i * table[2 * axes + axis]
        copy_run(x, source, step, out, target, stride, count)


def _reach(start, table, which):
    """Counts the elements of a buffer up to the last one that a region touches."""
    axes = len(table) // 3
    sizes, strides = table[:axes], table[which * axes : (which + 1) * axes]
    return 1 + int(start) + int(((sizes - 1) * strides.clip(0)).sum())


@kernel(
    touches={
        "x": lambda first, table: _reach(first, table, 1),
        "out": lambda begin, table: _reach(begin, table, 2),
    }
)
def copy_strided(x, first, out, begin, table, threads):
    """Copies a region of flat x that begins at ``first`` to a region of flat out that begins at ``begin``.

    table: the sizes of the axes, then their strides in x, then those in out. No size is 0.
    """
    axes = table.size // 3
    last, rows = table[axes - 1], 1
    for axis in range(axes - 1):
        rows *= table[axis]
    each = max(1, CHUNK_ELEMENTS // last)
    pieces = (last + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS
    parallel_for(copy_chunk, (rows + each - 1) // each * pieces, threads, (x, first, out, begin, table))
