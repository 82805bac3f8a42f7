"""The compiled twin of ``kernels.philox``: one counter an iteration, ten rounds in registers, four words out."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import kernel

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


@kernel
def philox_fill(key0, key1, stream, out):
    """out = the first words of a stream of the key (key0, key1); all given as uint64."""
    for i in range((out.size + 3) // 4):
        index = np.uint64(i)
        c0, c1, c2, c3 = index & MASK, index >> SHIFT, stream, np.uint64(0)
        k0, k1 = key0, key1
        for _ in range(10):
            p0, p1 = c0 * M0, c2 * M1
            c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & MASK, (p0 >> SHIFT) ^ c3 ^ k1, p0 & MASK
            k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
        at = 4 * i
        out[at] = c0
        if at + 1 < out.size:
            out[at + 1] = c1
        if at + 2 < out.size:
            out[at + 2] = c2
        if at + 3 < out.size:
            out[at + 3] = c3
