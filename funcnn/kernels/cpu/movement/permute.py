"""Copies of transposed arrays: (A, C, B) from (A, B, C), flat, as tiles turned in registers (``turn``).

A chunk is a block of ``BLOCK`` x ``BLOCK`` numbers, whose lines of both arrays stay in the first-level cache while the tiles
are turned; every number is read and written once.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.transpose import turn

BLOCK = 64


@device_function
def turn_block(chunk, worker, x, out, rows, columns):
    """One block of one matrix."""
    down, across = (rows + BLOCK - 1) // BLOCK, (columns + BLOCK - 1) // BLOCK
    i, j, plane = chunk // across % down * BLOCK, chunk % across * BLOCK, chunk // (down * across) * rows * columns
    source, target = pointer(x, plane + i * columns + j), pointer(out, plane + j * rows + i)
    turn(source, columns, target, rows, min(BLOCK, rows - i), min(BLOCK, columns - j))


@kernel(
    touches={
        "x": lambda planes, rows, columns: planes * rows * columns,
        "out": lambda planes, rows, columns: planes * rows * columns,
    }
)
def turn_planes(x, out, planes, rows, columns, threads):
    """out (planes, columns, rows) = x (planes, rows, columns), both flat."""
    blocks = ((rows + BLOCK - 1) // BLOCK) * ((columns + BLOCK - 1) // BLOCK)
    parallel_for(turn_block, planes * blocks, threads, (x, out, rows, columns))
