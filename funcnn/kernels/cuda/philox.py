"""Philox on the GPU: the same counters, rounds and words as ``kernels.cpu.random.philox``, a counter a thread."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function
from funcnn.kernels.cpu.random.philox import philox_block
from funcnn.kernels.cuda.shim import cuda, kernel


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


@kernel
def philox_fill(key0, key1, stream, out, start):
    """out = the words of a stream of the key (key0, key1) from counter ``start`` on; the four numbers are uint64."""
    for i in range(cuda.grid(1), (out.size + 3) // 4, cuda.gridsize(1)):
        store_block(philox_block(key0, key1, start + np.uint64(i), stream), 4 * i, out)
