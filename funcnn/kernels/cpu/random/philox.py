"""The compiled twin of ``kernels.philox``: one 128-bit counter an iteration, ten rounds in registers, four words out
(20 multiplications for 16 bytes). Words are held in 64-bit integers, where a product of two cannot overflow; vector units
work on 8 counters at a time.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


@device_function
def philox_block(k0, k1, index, stream):
    """Returns the four words of the counter whose low half is ``index`` and high half ``stream``; all are uint64."""
    c0, c1, c2, c3 = index & MASK, index >> SHIFT, stream & MASK, stream >> SHIFT
    for _ in range(10):
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & MASK, (p0 >> SHIFT) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@device_function
def philox_words(k0, k1, start, count, stream, p):
    """The words of ``count`` counters from ``start`` on, to a pointer."""
    for i in range(count):
        w0, w1, w2, w3 = philox_block(k0, k1, np.uint64(start) + np.uint64(i), stream)
        p[4 * i] = np.uint32(w0)
        p[4 * i + 1] = np.uint32(w1)
        p[4 * i + 2] = np.uint32(w2)
        p[4 * i + 3] = np.uint32(w3)
