"""Images in front of channels again, for batch norm of short runs, which takes channels first."""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer

IMAGES_TOGETHER = 8  # copied together: what they write stays in the first-level cache


@kernel(touches={"x": lambda y: y.size})
def batch_first(x, y, threads):
    """Writes y (N, C, S) = x (C, N, S), for short runs S."""
    parallel_for(_images_first, -(-len(y) // IMAGES_TOGETHER), threads, (x, y))


@device_function
def _images_first(chunk, worker, x, y):
    """Copies some images of each channel, which are contiguous in x."""
    N, C, S = y.shape
    first, last = chunk * IMAGES_TOGETHER, min((chunk + 1) * IMAGES_TOGETHER, N)
    for c in range(C):
        source = pointer(x, (c * N + first) * S)
        for n in range(last - first):
            target = pointer(y, ((first + n) * C + c) * S)
            for i in range(S):
                target[i] = source[n * S + i]
