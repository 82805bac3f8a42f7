"""Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror and Shaw, SC 2011): ten rounds of two 32 x 32 bit
products mix a 128-bit counter under a 64-bit key. Word i of a sequence depends on nothing but the key and i, so the bits
are the same for any number of threads, and on a GPU.

Three twins give the same bits: Python integers for a few words, NumPy for thousands, and the compiled kernels.
"""

from __future__ import annotations

import numpy as np

M0, M1 = 0xD2511F53, 0xCD9E8D57  # multipliers of the two lanes, from the paper's reference code
W0, W1 = 0x9E3779B9, 0xBB67AE85  # key increments: the golden ratio and sqrt(3) - 1, times 2**32
MASK = 0xFFFFFFFF


def block(k0: int, k1: int, c0: int, c1: int, c2: int, c3: int) -> tuple[int, int, int, int]:
    """Returns the four words of one counter, in Python integers."""
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


def words_python(k0: int, k1: int, stream: int, count: int) -> np.ndarray:
    """Returns the first ``count`` words of a stream of a key; the stream is the counter's third word."""
    blocks = [block(k0, k1, i & MASK, i >> 32, stream, 0) for i in range(-(-count // 4))]
    return np.array([word for four in blocks for word in four][:count], np.uint32)


def words_numpy(k0: int, k1: int, stream: int, count: int) -> np.ndarray:
    """Returns the same words, all counters at once in 64-bit lanes."""
    index = np.arange(-(-count // 4), dtype=np.uint64)
    shift, mask = np.uint64(32), np.uint64(MASK)
    c0, c1 = index & mask, index >> shift
    c2, c3 = np.full_like(index, stream), np.zeros_like(index)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(M0), c2 * np.uint64(M1)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & mask, (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32).reshape(-1)[:count]
