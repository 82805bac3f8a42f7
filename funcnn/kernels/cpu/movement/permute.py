"""Copies of transposed arrays: (A, C, B) from (A, B, C), flat, as tiles transposed in registers (``transpose``).

A chunk is a block of ``BLOCK_SIDE`` x ``BLOCK_SIDE`` elements, whose lines of both arrays stay in the first-level cache while the tiles
are transposed; every element is read and written once.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.transpose import transpose

BLOCK_SIDE = 64


@device_function
def transpose_block(chunk, worker, x, out, rows, columns):
    """Works on one block of one matrix."""
    down, across = (rows + BLOCK_SIDE - 1) // BLOCK_SIDE, (columns + BLOCK_SIDE - 1) // BLOCK_SIDE
    i, j, plane = (
        chunk // across % down * BLOCK_SIDE,
        chunk % across * BLOCK_SIDE,
        chunk // (down * across) * rows * columns,
    )
    source, target = pointer(x, plane + i * columns + j), pointer(out, plane + j * rows + i)
    transpose(source, columns, target, rows, min(BLOCK_SIDE, rows - i), min(BLOCK_SIDE, columns - j))


@kernel(
    touches={
        "x": lambda planes, rows, columns: planes * rows * columns,
        "out": lambda planes, rows, columns: planes * rows * columns,
    }
)
def transpose_planes(x, out, planes, rows, columns, threads):
    """Writes out (planes, columns, rows) = x (planes, rows, columns), both flat."""
    blocks = ((rows + BLOCK_SIDE - 1) // BLOCK_SIDE) * ((columns + BLOCK_SIDE - 1) // BLOCK_SIDE)
    parallel_for(transpose_block, planes * blocks, threads, (x, out, rows, columns))
