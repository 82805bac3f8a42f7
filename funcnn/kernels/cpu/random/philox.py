"""The compiled twin of ``kernels.philox``: one 128-bit counter an iteration, ten rounds in registers, four words out
(20 multiplications for 16 bytes). Words are held in 64-bit integers, where a product of two cannot overflow; vector units
work on 8 counters at a time.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.scratch import intact, room

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
COUNTERS = 1 << 12  # of a chunk
SPAN = (
    1 << 8
)  # counters at a time, into the first-level cache: single words far apart in memory take four times as long


@device_function
def philox_block(k0, k1, index, stream):
    """The four words of the counter whose low half is ``index`` and high half ``stream``; all are uint64."""
    c0, c1, c2, c3 = index & MASK, index >> SHIFT, stream & MASK, stream >> SHIFT
    for _ in range(10):
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & MASK, (p0 >> SHIFT) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@device_function
def store_block(words, at, out):
    """out[at : at + 4] = words, as far as out goes."""
    out[at] = words[0]
    if at + 1 < out.size:
        out[at + 1] = words[1]
    if at + 2 < out.size:
        out[at + 2] = words[2]
    if at + 3 < out.size:
        out[at + 3] = words[3]


@device_function
def philox_words(k0, k1, start, count, stream, p):
    """The words of ``count`` counters from ``start`` on, to a pointer."""
    for i in range(count):
        w0, w1, w2, w3 = philox_block(k0, k1, np.uint64(start) + np.uint64(i), stream)
        p[4 * i] = np.uint32(w0)
        p[4 * i + 1] = np.uint32(w1)
        p[4 * i + 2] = np.uint32(w2)
        p[4 * i + 3] = np.uint32(w3)


@device_function
def philox_chunk(chunk, worker, key0, key1, stream, out, start):
    first = chunk * COUNTERS
    count = min(COUNTERS, (out.size + 3) // 4 - first)
    whole = min(count, out.size // 4 - first)
    words = room(4 * SPAN, np.uint32)
    for at in range(first, first + whole, SPAN):
        many, target, drawn = min(SPAN, first + whole - at), pointer(out, 4 * at), pointer(words, 0)
        philox_words(key0, key1, start + np.uint64(at), many, stream, drawn)
        for i in range(4 * many):
            target[i] = drawn[i]
    intact(words)
    if whole < count:
        last = first + whole
        store_block(philox_block(key0, key1, start + np.uint64(last), stream), 4 * last, out)


@kernel(touches={"out": lambda out: out.size})
def philox_fill(key0, key1, stream, out, start, threads):
    """out = the words of a stream of the key (key0, key1) from counter ``start`` on; all four are uint64, out uint32."""
    chunks = ((out.size + 3) // 4 + COUNTERS - 1) // COUNTERS
    parallel_for(philox_chunk, chunks, threads, (key0, key1, stream, out, start))
