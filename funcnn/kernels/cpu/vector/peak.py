"""What the machine can do at most: kernels that do nothing but multiply-add, and nothing but copy.

``multiply`` repeats the register tile of ``vector.tile_product`` on operands that stay in the first-level cache: 2 count
ROWS COLUMNS flops a time, each worker into a tile of its own. ``copy`` moves rows of memory: 2 itemsize bytes an element,
one read and one written.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, tile_product


@device_function
def multiply_chunk(chunk, worker, a, b, c, count, columns, tile, repeats):
    """``repeats`` products into the worker's tile."""
    left, right, target = pointer(a, 0), pointer(b, 0), pointer(c, worker * tile)
    for _ in range(repeats):
        tile_product(count, left, right, target, columns, False)


@kernel(
    touches={
        "a": lambda count, columns, tile: count * tile // columns,
        "b": lambda count, columns: count * columns,
        "c": lambda tile, threads: threads * tile,
    }
)
def multiply(a, b, c, count, columns, tile, repeats, chunks, threads):
    """``chunks * repeats`` tile products; c has ``tile`` elements for each thread, in rows of ``columns``."""
    parallel_for(multiply_chunk, chunks, threads, (a, b, c, count, columns, tile, repeats))


@device_function
def copy_chunk(chunk, worker, source, target, size):
    """Works on numbers ``chunk * size`` and the following."""
    read, write = pointer(source, chunk * size), pointer(target, chunk * size)
    for i in range(size):
        write[i] = read[i]


@kernel(touches={"source": lambda size, chunks: chunks * size, "target": lambda size, chunks: chunks * size})
def copy(source, target, size, chunks, threads):
    """``chunks`` pieces of ``size`` elements from source to target."""
    parallel_for(copy_chunk, chunks, threads, (source, target, size))
