"""Fills memory with one number, and counts up."""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, exact_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer

CHUNK_ELEMENTS = 1 << 13


@device_function
def fill_chunk(chunk, worker, out, bits):
    start = chunk * CHUNK_ELEMENTS
    q = pointer(out, start)
    for i in range(min(CHUNK_ELEMENTS, out.size - start)):
        q[i] = bits


@kernel(touches={"out": lambda out: out.size})
def fill(out, bits, threads):
    """Sets every element of flat out to one number, given by its bits."""
    parallel_for(fill_chunk, (out.size + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS, threads, (out, bits))


@exact_function
def count_chunk(chunk, worker, out, start, step):
    """Rounds a product before it is added, as NumPy does."""
    first = chunk * CHUNK_ELEMENTS
    q = pointer(out, first)
    for i in range(min(CHUNK_ELEMENTS, out.size - first)):
        q[i] = start + step * (first + i)


@kernel(touches={"out": lambda out: out.size})
def count_up(out, start, step, threads):
    """Sets flat out to start, start + step, ...; both are of its dtype."""
    parallel_for(count_chunk, (out.size + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS, threads, (out, start, step))
