"""How local response normalization runs on the CPU."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.norm import lrn as kernels
from funcnn.kernels.cpu.threads import number as threads

COLUMNS = 1 << 15  # numbers in a block of all channels


FORWARD_NS, BACKWARD_NS = 3.0, 5.0  # nanoseconds a number on one thread


def _width(x: np.ndarray) -> int:
    return max(16, min(x.shape[2], 1024, COLUMNS // max(x.shape[1], 1)))


def local_response(ins: list, outs: list, size: int, alpha: float, beta: float, k: float) -> None:
    x = np.ascontiguousarray(ins[0])
    if x.size:
        work = threads.workers(FORWARD_NS * x.size)
        kernels.local_response(x, outs[0], outs[1], size, alpha, beta, k, _width(x), work)


def local_response_grad(ins: list, outs: list, size: int, alpha: float, beta: float, k: float) -> None:
    dy, x, base = (np.ascontiguousarray(a) for a in ins)
    if x.size:
        work, width = threads.workers(BACKWARD_NS * x.size), _width(x)
        scratch = empty((work * (x.shape[1] + 1) * width,), x.dtype)
        kernels.local_response_grad(dy, x, base, outs[0], scratch, size, alpha, beta, width, work)
