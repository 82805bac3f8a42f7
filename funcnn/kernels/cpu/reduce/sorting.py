"""How arrays are sorted, and the first of each row found, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.memory import fresh
from funcnn.kernels.cpu.reduce.launch import flat
from funcnn.kernels.cpu.reduce.topk import top_rows
from funcnn.kernels.cpu.threads.number import workers
from funcnn.kernels.implementation import NUMPY, UNPLANNED, host

FEW = 64  # the first of a row that are kept in order by insertion


LARGE = 1 << 12  # numbers; below, NumPy's sort costs less


def argsort(ins: list, outs: list, dim: int, descending: bool) -> None:
    x = ins[0]
    if descending:
        x = np.flip(x, dim)
    order = np.argsort(x, axis=dim, kind="stable")
    outs[0][...] = np.flip(x.shape[dim] - 1 - order, dim) if descending else order


def sorted_top(ins: list, outs: list, dim: int, k: int, largest: bool) -> None:
    order = fresh(ins[0].shape, np.int64)
    argsort(ins, [order], dim, largest)
    np.copyto(outs[0], order[(slice(None),) * dim + (slice(k),)])


def inserted_top(ins: list, outs: list, dim: int, k: int, largest: bool) -> None:
    x = np.moveaxis(ins[0], dim, -1)
    best = fresh((*x.shape[:-1], k), np.int64)
    top_rows(flat(x), best.reshape(-1), x.shape[-1], k, largest, workers(x.size * 1.0))
    np.copyto(outs[0], np.moveaxis(best, -1, dim))


def inserts(ins: Any, dim: int, k: int, largest: bool) -> bool:
    x = ins[0]
    return 0 < k <= min(FEW, x.shape[dim] // 4) and x.size >= LARGE and x.dtype.char in "fd"


TOP = (host("kernel", inserted_top, UNPLANNED, inserts), host("numpy", sorted_top, NUMPY))
