"""Random numbers by Philox and what is made of them, in one pass: uniform, normal, dropout.

A row of the output is drawn from each key: number j of a row is made of word j of the key's stream (two words in float64),
so the bits do not depend on threads. Words are drawn ``SPAN_ELEMENTS`` elements at a time into scratch memory that stays in the
first-level cache: half a nanosecond a word.
"""

from __future__ import annotations

import math

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, exact_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.random.philox import philox_block, philox_words
from funcnn.kernels.cpu.vector.bits import like, single
from funcnn.kernels.cpu.vector.functions import cos, log, sin
from funcnn.kernels.cpu.vector.instructions import pointer, shift

SPAN_ELEMENTS = 1 << 10  # drawn at a time
CHUNK_ELEMENTS = 1 << 13  # a multiple of SPAN_ELEMENTS
SCRATCH_WORDS = 4 * SPAN_ELEMENTS + 16  # of a worker: two spans of two words, each begun and ended within a counter


@device_function
def draw(key, stream, first, count, scratch, place):
    """Returns a pointer to the words ``first`` to ``first + count`` of a stream, drawn into scratch from ``place`` on."""
    p = pointer(scratch, place)
    start = first // 4
    philox_words(np.uint64(key[0]), np.uint64(key[1]), start, (first + count + 3) // 4 - start, np.uint64(stream), p)
    return shift(p, first - 4 * start)


@device_function
def pieces(n):
    """Returns the chunks of a row of n elements."""
    return (n + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS


@exact_function
def unit(zero, words, i):
    """Number i in [0, 1) in the type of ``zero``: 24 bits of a word in float32, 53 of two words in float64."""
    if single(zero):
        return like(zero, np.float32(words[i] >> np.uint32(8)) * np.float32(2.0**-24))
    high, low = words[2 * i] >> np.uint32(5), words[2 * i + 1] >> np.uint32(6)
    return like(zero, (np.float64(high) * 2.0**26 + np.float64(low)) * 2.0**-53)


# ---- words ------------------------------------------------------------------------------------------------------------
@device_function
def words_chunk(chunk, worker, keys, stream, out, scratch):
    n = out.shape[1]
    row, start = chunk // pieces(n), chunk % pieces(n) * CHUNK_ELEMENTS
    for at in range(start, min(start + CHUNK_ELEMENTS, n), SPAN_ELEMENTS):
        count = min(SPAN_ELEMENTS, n - at)
        w = draw(keys[row], stream, at, count, scratch, worker * SCRATCH_WORDS)
        q = pointer(out, row * n + at)
        for i in range(count):
            q[i] = w[i]


@kernel(touches={"keys": lambda out: 2 * len(out), "scratch": lambda threads: threads * SCRATCH_WORDS})
def words(keys, out, stream, scratch, threads):
    """Writes out (K, n) = the words (uint32) of a stream of each key (K, 2)."""
    parallel_for(words_chunk, out.shape[0] * pieces(out.shape[1]), threads, (keys, stream, out, scratch))


@kernel(touches={"keys": lambda data: 2 * data.size, "out": lambda data: 2 * data.size})
def fold(keys, data, out, stream):
    """out (K, 2) = the first words of the counter (data, stream) of each key (K, 2); data (K,) is int64."""
    for i in range(data.size):
        k0, k1 = np.uint64(keys[i, 0]), np.uint64(keys[i, 1])
        words = philox_block(k0, k1, np.uint64(data[i]), np.uint64(stream))
        out[i, 0], out[i, 1] = np.uint32(words[0]), np.uint32(words[1])


# ---- uniform numbers --------------------------------------------------------------------------------------------------
@device_function
def uniform_chunk(chunk, worker, keys, stream, out, scratch):
    n, size = out.shape[1], out.itemsize // 4
    row, start = chunk // pieces(n), chunk % pieces(n) * CHUNK_ELEMENTS
    zero = like(out[0, 0], 0.0)
    for at in range(start, min(start + CHUNK_ELEMENTS, n), SPAN_ELEMENTS):
        count = min(SPAN_ELEMENTS, n - at)
        w = draw(keys[row], stream, size * at, size * count, scratch, worker * SCRATCH_WORDS)
        q = pointer(out, row * n + at)
        for i in range(count):
            q[i] = unit(zero, w, i)


@kernel(touches={"keys": lambda out: 2 * len(out), "scratch": lambda threads: threads * SCRATCH_WORDS})
def uniform(keys, out, stream, scratch, threads):
    """Writes out (K, n) = uniform numbers in [0, 1) from a stream of each key (K, 2)."""
    parallel_for(uniform_chunk, out.shape[0] * pieces(out.shape[1]), threads, (keys, stream, out, scratch))


# ---- normal numbers ---------------------------------------------------------------------------------------------------
@device_function
def normal_chunk(chunk, worker, keys, stream, out, scratch):
    n, size = out.shape[1], out.itemsize // 4
    half = (n + 1) // 2
    row, start = chunk // pieces(half), chunk % pieces(half) * CHUNK_ELEMENTS
    one, minus, circle = like(out[0, 0], 1.0), like(out[0, 0], -2.0), like(out[0, 0], 2.0 * math.pi)
    for at in range(start, min(start + CHUNK_ELEMENTS, half), SPAN_ELEMENTS):
        count = min(SPAN_ELEMENTS, half - at)
        place = worker * SCRATCH_WORDS
        u = draw(keys[row], stream, size * at, size * count, scratch, place)
        v = draw(keys[row], stream, size * (half + at), size * count, scratch, place + SCRATCH_WORDS // 2)
        p = pointer(out, row * n + at)
        q = shift(p, half)
        both = min(count, n - half - at)
        for i in range(both):
            radius = like(one, math.sqrt(minus * log(one - unit(one, u, i))))
            angle = circle * unit(one, v, i)
            p[i] = radius * cos(angle)
            q[i] = radius * sin(angle)
        if both < count:  # the last of an odd number
            radius = like(one, math.sqrt(minus * log(one - unit(one, u, both))))
            p[both] = radius * cos(circle * unit(one, v, both))


@kernel(touches={"keys": lambda out: 2 * len(out), "scratch": lambda threads: threads * SCRATCH_WORDS})
def normal(keys, out, stream, scratch, threads):
    """Writes out (K, n) = standard normal numbers by the Box-Muller transform: the cosines first, then the sines."""
    chunks = out.shape[0] * pieces((out.shape[1] + 1) // 2)
    parallel_for(normal_chunk, chunks, threads, (keys, stream, out, scratch))


# ---- dropout ----------------------------------------------------------------------------------------------------------
@device_function
def dropout_chunk(chunk, worker, keys, stream, x, out, level, scale, scratch):
    n = x.shape[1]
    row, start = chunk // pieces(n), chunk % pieces(n) * CHUNK_ELEMENTS
    zero = like(scale, 0.0)
    for at in range(start, min(start + CHUNK_ELEMENTS, n), SPAN_ELEMENTS):
        count = min(SPAN_ELEMENTS, n - at)
        w = draw(keys[row], stream, at, count, scratch, worker * SCRATCH_WORDS)
        p, q = pointer(x, row * n + at), pointer(out, row * n + at)
        for i in range(count):
            q[i] = p[i] * (scale if w[i] > level else zero)


@kernel(
    touches={
        "keys": lambda out: 2 * len(out),
        "x": lambda out: out.size,
        "scratch": lambda threads: threads * SCRATCH_WORDS,
    }
)
def dropout(keys, x, out, stream, level, scale, scratch, threads):
    """Writes out (K, n) = x scaled where its word of the key's stream is above ``level`` (uint32), 0 elsewhere."""
    chunks = out.shape[0] * pieces(out.shape[1])
    parallel_for(dropout_chunk, chunks, threads, (keys, stream, x, out, level, scale, scratch))
