"""Philox on the GPU: the same counters, rounds and words as ``kernels.cpu.random.philox``, a counter a thread."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.random.philox import philox_block, store_block
from funcnn.kernels.cuda.shim import cuda, kernel


@kernel
def philox_fill(key0, key1, stream, out, start):
    """out = the words of a stream of the key (key0, key1) from counter ``start`` on; the four numbers are uint64."""
    for i in range(cuda.grid(1), (out.size + 3) // 4, cuda.gridsize(1)):
        store_block(philox_block(key0, key1, start + np.uint64(i), stream), 4 * i, out)
