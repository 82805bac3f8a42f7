"""How a product of two matrices runs on the CPU: NumPy's BLAS where it is small, our kernel where that is faster."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.memory import empty
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.matmul import multiply_packed, pack_matrix
from funcnn.kernels.cpu.tiles import strided_shape

WORTHWHILE = 1 << 22  # multiply-adds from which our kernel wins; below, NumPy's call costs less
FLOP_NS = 0.01  # nanoseconds a flop on one core


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray, bias: np.ndarray | None = None) -> None:
    """out (m, n) = a (m, k) @ b (k, n) (+ bias (n,)); a and b with any strides, out contiguous."""
    m, k, n = *a.shape, b.shape[1]
    if m * k * n < WORTHWHILE or min(m, n, k) < 8 or not (_simple(a) and _simple(b)):
        np.matmul(a, b, out=out)
        if bias is not None:
            out += bias
        return
    wide = strided_shape(out.itemsize)[1]
    plain = _packing(b, n, wide, k) + (0 if _by_rows(a) else 2 * a.size)
    turned = _packing(a.T, m, wide, k) + (0 if _by_rows(b.T) else 2 * b.size)
    if plain <= turned:
        _multiply(a, b, out, n, 1, bias, 2)
    else:
        _multiply(b.T, a.T, out, 1, n, bias, 1)


def _simple(x: np.ndarray) -> bool:
    """Contiguous, as it is or transposed."""
    return x.flags.c_contiguous or x.flags.f_contiguous


def _by_rows(x: np.ndarray) -> bool:
    return x.strides[1] == x.itemsize


def _packing(b: np.ndarray, lanes: int, wide: int, count: int) -> float:
    """What packing b (count, lanes) costs in moved numbers, with the work on lanes that are not there."""
    waste = -(-lanes // wide) * wide / lanes - 1
    return (1 if b.strides[1] == b.itemsize else 3) * b.size + waste * lanes * count * 4


def _flat(x: np.ndarray) -> np.ndarray:
    return (x if x.flags.c_contiguous else x.T).reshape(-1)


def _packed(b: np.ndarray, wide: int) -> np.ndarray:
    """b (count, lanes) in panels of ``wide`` lanes."""
    count, lanes = b.shape
    packed = empty((-(-lanes // wide) * wide * count,), b.dtype)
    along, across = (stride // b.itemsize for stride in b.strides)
    pack_matrix(_flat(b), packed, count, lanes, wide, along, across, threads.workers(packed.size))
    return packed


def _multiply(a: Any, b: Any, out: np.ndarray, down: int, across: int, bias: Any, add: int) -> None:
    rows, wide = tile = strided_shape(out.itemsize)
    (many, count), lanes = a.shape, b.shape[1]
    tiles, panels = -(-many // rows), -(-lanes // wide)
    if _by_rows(a):
        left, strides = _flat(a), (1, count, 0)
    else:
        left, strides = _packed(a.T, rows), (rows, 1, rows * count)
    work = threads.workers(2 * FLOP_NS * a.shape[0] * count * lanes)
    scratch = empty((work * rows * wide,), out.dtype)
    block = max(1, -(-tiles * panels // 16) // panels) if panels < 16 else tiles
    flat, extra = out.reshape(-1), scratch if bias is None else np.ascontiguousarray(bias)
    sizes = (many, count, lanes)
    multiply_packed(
        left, _packed(b, wide), flat, extra, scratch, tile, sizes, block, (*strides, down, across),
        0 if bias is None else add, work,
    )  # fmt: skip


def matmul(ins: list, outs: list) -> None:
    """The primitive: two matrices, or batches of them by NumPy."""
    if ins[0].ndim == ins[1].ndim == 2:
        product(ins[0], ins[1], outs[0])
    else:
        np.matmul(ins[0], ins[1], out=outs[0])


def linear(ins: list, outs: list) -> None:
    """out (*, n) = x (*, k) @ w (n, k)' (+ bias)."""
    x, w = ins[0], ins[1]
    k = w.shape[1]
    if not x.size:
        outs[0][...] = ins[2] if len(ins) > 2 else 0
        return
    product(x.reshape(-1, k), w.T, outs[0].reshape(-1, w.shape[0]), ins[2] if len(ins) > 2 else None)
