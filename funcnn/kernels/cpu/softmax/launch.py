"""How the softmax family runs on the CPU: axes folded to (outer, n, inner), work cut into chunks, scratch memory."""

from __future__ import annotations

from math import prod

import numpy as np

from funcnn.kernels.cpu.memory import fresh
from funcnn.kernels.cpu.softmax import entropy
from funcnn.kernels.cpu.softmax import softmax as kernels
from funcnn.kernels.cpu.threads import number as threads

CHUNK = 1 << 15  # numbers in a chunk, about 20 us
LEAST = 64  # numbers that cost as much as a row does beside them
WIDTH = 256  # columns that go through the passes together
EXP_NS, PLAIN_NS = 0.5, 0.4  # nanoseconds a number on one thread, with and without an exponential
ROW_NS = 30.0  # nanoseconds a row, however short
NO_TARGET = np.empty((0, 0), np.int64)


def rows(x: np.ndarray, dim: int) -> np.ndarray:
    """(outer, n, inner) with ``dim`` in the middle, contiguous."""
    shape = x.shape
    return np.ascontiguousarray(x).reshape(prod(shape[:dim]), shape[dim], prod(shape[dim + 1 :]))


def _cut(x: np.ndarray) -> tuple[int, int]:
    """Rows or blocks of columns in a chunk, and columns in a block."""
    width = min(x.shape[2], WIDTH)
    return max(1, CHUNK // (x.shape[1] * width + LEAST)), width


def _threads(x: np.ndarray, cost: float) -> int:
    """Threads for (outer, n, inner) numbers of so many nanoseconds."""
    return threads.workers(cost * x.size + (ROW_NS * x.shape[0] if x.shape[2] == 1 else 0.0))


def softmax(ins: list, outs: list, dim: int, logarithm: bool) -> None:
    """exp(x) / sum(exp(x)) along ``dim``, or its logarithm."""
    if not ins[0].size:
        return
    x, y = rows(ins[0], dim), rows(outs[0], dim)
    cut, work = _cut(x), _threads(x, EXP_NS)
    room = work * cut[1]
    kernels.softmax_forward(x, y, logarithm, fresh(room, x.dtype), fresh(room), cut, work)


def softmax_grad(ins: list, outs: list, dim: int, logarithm: bool) -> None:
    """The gradient in x, of dy and y."""
    if not ins[0].size:
        return
    dy, y, dx = rows(ins[0], dim), rows(ins[1], dim), rows(outs[0], dim)
    cut, work = _cut(y), _threads(y, EXP_NS if logarithm else PLAIN_NS)
    kernels.softmax_grad(dy, y, dx, logarithm, fresh(work * cut[1]), cut, work)


def log_sums(x: np.ndarray, top: np.ndarray, rest: np.ndarray) -> None:
    """top = max(x) and rest = log(sum(exp(x - top))) along axis 1 of x (O, N, I), neither of them empty."""
    cut, work = _cut(x), _threads(x, EXP_NS)
    entropy.log_sums(x, top, rest, fresh(work * cut[1]), cut, work)


def exponentials(
    x: np.ndarray, top: np.ndarray, rest: np.ndarray, scale: np.ndarray, dx: np.ndarray,
    target: np.ndarray = NO_TARGET, ignore_index: int = 0,
) -> None:  # fmt: skip
    """dx = exp(x - top - rest) * scale, less scale at the target; see the kernel."""
    entropy.exponentials(x, top, rest, scale, dx, target, ignore_index, _cut(x), _threads(x, EXP_NS))
