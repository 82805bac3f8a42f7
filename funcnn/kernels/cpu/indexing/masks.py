"""What goes by where a mask holds: the places themselves, elements put there, and elements taken from there, in order.

Where an element goes follows from how many places come before it. So the chunks are first counted, side by side; the counts
become the place where each chunk begins; and then each chunk goes through its own. A mask lies in memory as bytes.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift

CHUNK_ELEMENTS = 1 << 13


def counts_of(size):
    """How many counts the chunks of so many elements need: one more than there are chunks."""
    return -(-size // CHUNK_ELEMENTS) + 1


@device_function
def count_chunk(chunk, worker, x, counts):
    """Counts what is not zero in a chunk."""
    p, count = pointer(x, chunk * CHUNK_ELEMENTS), 0
    for i in range(min(CHUNK_ELEMENTS, x.size - chunk * CHUNK_ELEMENTS)):
        count += p[i] != 0
    counts[chunk + 1] = count


@device_function
def count_all(x, counts, threads):
    """Fills ``counts`` with how many elements are not zero before each chunk, and in all; the number of chunks."""
    chunks = (x.size + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS
    counts[0] = 0
    parallel_for(count_chunk, chunks, threads, (x, counts))
    for chunk in range(chunks):
        counts[chunk + 1] += counts[chunk]
    return chunks


# ---- places -----------------------------------------------------------------------------------------------------------
@device_function
def find_chunk(chunk, worker, x, sizes, out, step, apart, counts):
    """Writes the places of a chunk: flat ones first, where the last coordinate belongs, which are then taken apart."""
    first, count, axes = counts[chunk], counts[chunk + 1] - counts[chunk], sizes.size
    p, last = pointer(x, chunk * CHUNK_ELEMENTS), pointer(out, (axes - 1) * apart)
    found, i = 0, 0
    while found < count:
        last[(first + found) * step] = chunk * CHUNK_ELEMENTS + i
        found += p[i] != 0
        i += 1
    for k in range(first, first + count if axes > 1 else first):
        target = pointer(out, k * step)
        rest = target[(axes - 1) * apart]
        for axis in range(axes - 1, 0, -1):
            target[axis * apart] = rest % sizes[axis]
            rest //= sizes[axis]
        target[0] = rest


@kernel(
    touches={
        "out": lambda x, sizes: x.size * sizes.size,
        "counts": lambda x: counts_of(x.size),
        "count": lambda: 1,
    }
)
def nonzero(x, sizes, out, step, apart, counts, count, threads):
    """Writes the places of x, of the shape ``sizes``, that are not zero, and how many there are.

    step: how far apart two places lie in ``out``; apart: the coordinates of one.
    """
    chunks = count_all(x, counts, threads)
    parallel_for(find_chunk, chunks, threads, (x, sizes, out, step, apart, counts))
    count[0] = counts[chunks]


# ---- elements ---------------------------------------------------------------------------------------------------------
@device_function
def put_chunk(chunk, worker, mask, source, out, counts):
    """Puts the elements of a chunk."""
    p, q, at = pointer(mask, chunk * CHUNK_ELEMENTS), pointer(out, chunk * CHUNK_ELEMENTS), counts[chunk]
    for i in range(min(CHUNK_ELEMENTS, mask.size - chunk * CHUNK_ELEMENTS)):
        if p[i]:
            q[i] = source[at]
            at += 1


@kernel(touches={"out": lambda mask: mask.size, "counts": lambda mask: counts_of(mask.size)})
def masked_put(mask, source, out, counts, status, threads):
    """Writes the elements of ``source``, in order, where the mask holds; refuses fewer of them than there are places."""
    chunks = count_all(mask, counts, threads)
    if counts[chunks] > source.size:
        status[0], status[1], status[2], status[3] = 1, 1, 0, counts[chunks]
    else:
        parallel_for(put_chunk, chunks, threads, (mask, source, out, counts))


@kernel(touches={"counts": lambda mask: counts_of(mask.size)})
def look_at_mask(mask, most, counts, status, threads):
    """Refuses a mask that holds at more than ``most`` places."""
    chunks = count_all(mask, counts, threads)
    if counts[chunks] > most:
        status[0], status[1], status[2], status[3] = 1, 1, 0, counts[chunks]


@device_function
def take_chunk(chunk, worker, x, mask, out, counts):
    """Takes the elements of a chunk."""
    at, most = counts[chunk], min(counts[chunk + 1], out.size)
    p, q = pointer(mask, chunk * CHUNK_ELEMENTS), pointer(x, chunk * CHUNK_ELEMENTS)
    target, i = pointer(out, 0), 0
    while at < most:
        target[at] = q[i]
        at += p[i] != 0
        i += 1


@kernel(touches={"x": lambda mask: mask.size, "counts": lambda mask: counts_of(mask.size)})
def masked_take(x, mask, out, counts, threads):
    """Writes the elements where the mask holds, in order, as many as there is room for, then zeros."""
    chunks = count_all(mask, counts, threads)
    parallel_for(take_chunk, chunks, threads, (x, mask, out, counts))
    rest = shift(pointer(out, 0), min(counts[chunks], out.size))
    for i in range(out.size - min(counts[chunks], out.size)):
        rest[i] = 0
