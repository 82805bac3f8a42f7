"""How a product of two matrices runs on the CPU: NumPy's BLAS where it is small, our kernel where that is faster."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.matmul.epilogue import ACTIVATIONS, LANES, NOTHING, ROWS
from funcnn.kernels.cpu.matmul.product import multiply
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.tiles import strided_shape

WORTHWHILE = (
    1 << 18
)  # multiply-adds from which our kernel runs: there NumPy's BLAS begins to use, and spin, threads of its own
FLOP_NS = 0.01  # nanoseconds a flop on one core
NO_FINISH = (0, False, False, 0)


def product(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, bias: np.ndarray | None = None, scale: np.ndarray | None = None,
    residual: np.ndarray | None = None, activation: str | None = None,
) -> None:  # fmt: skip
    """out (m, n) = activation(a (m, k) @ b (k, n) * scale (n,) + bias (n,) + residual (m, n)).

    a and b with any strides, out and residual contiguous; scale needs a bias. activation: one of ``ACTIVATIONS``.
    """
    m, k, n = *a.shape, b.shape[1]
    if m * k * n < WORTHWHILE or min(m, n, k) < 8 or out.dtype.char not in "fd" or not (_simple(a) and _simple(b)):
        np.matmul(a, b, out=out)
        _finish(out, bias, scale, residual, activation)
        return
    wide = strided_shape(out.itemsize)[1]
    plain = _packing(b, n, wide, k) + (0 if _by_rows(a) else 2 * a.size)
    turned = _packing(a.T, m, wide, k) + (0 if _by_rows(b.T) else 2 * b.size)
    if plain <= turned:
        _multiply(a, b, out, (n, 1), LANES, bias, scale, residual, activation)
    else:
        _multiply(b.T, a.T, out, (1, n), ROWS, bias, scale, residual, activation)


def _finish(out: np.ndarray, bias: Any, scale: Any, residual: Any, activation: str | None) -> None:
    if scale is not None:
        out *= scale
    for more in (bias, residual):
        if more is not None:
            out += more
    if activation == "relu":
        np.maximum(out, 0, out=out)
    elif activation is not None:
        np.tanh(out if activation == "tanh" else out / 2, out=out)
        if activation == "sigmoid":
            np.multiply(out + 1, 0.5, out=out)


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


def _strides(x: np.ndarray) -> tuple[int, int]:
    return x.strides[0] // x.itemsize, x.strides[1] // x.itemsize


def _multiply(
    a: Any, b: Any, out: np.ndarray, lie: tuple, each: int, bias: Any, scale: Any, residual: Any, activation: Any
) -> None:
    """The kernel on a (many, count) and b (count, lanes); element (i, j) of its result ``lie``s i, j times that far in out."""
    rows, wide = tile = strided_shape(out.itemsize)
    (many, count), lanes = a.shape, b.shape[1]
    tiles, panels = -(-many // rows), -(-lanes // wide)
    threads_ = threads.workers(2 * FLOP_NS * many * count * lanes)
    block = max(1, -(-tiles * panels // 16) // panels) if panels < 16 else tiles
    work = empty(
        (panels * wide * count + tiles * rows * count * (not _by_rows(a)) + threads_ * rows * wide,), out.dtype
    )
    flat, extra, finish = out.reshape(-1), work, NO_FINISH
    if bias is not None or residual is not None or activation is not None:
        given = [np.ascontiguousarray(x) for x in (bias, scale) if x is not None]
        extra = work if not given else given[0] if len(given) == 1 else np.concatenate(given)
        code = ACTIVATIONS.index(activation)
        finish = (each if given else NOTHING, scale is not None, residual is not None, code)
    more = flat if residual is None else residual.reshape(-1)
    strides = (*_strides(a), *_strides(b), *lie)
    multiply(_flat(a), _flat(b), flat, extra, more, work, tile, (many, count, lanes), strides, block, finish, threads_)


def matmul(ins: list, outs: list) -> None:
    """The primitive: two matrices, or batches of them, one after the other where each is large enough for our kernel."""
    a, b, out = ins[0], ins[1], outs[0]
    if a.ndim == b.ndim == 2:
        product(a, b, out)
    elif a.shape[-2] * a.shape[-1] * b.shape[-1] < WORTHWHILE:
        np.matmul(a, b, out=out)
    else:
        lead = out.shape[:-2]
        a, b = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
        for index in np.ndindex(lead):
            product(a[index], b[index], out[index])


def linear(ins: list, outs: list) -> None:
    """out (*, n) = x (*, k) @ w (n, k)' (+ bias)."""
    x, w = ins[0], ins[1]
    k = w.shape[1]
    if not outs[0].size:
        return
    if not x.size:
        outs[0][...] = ins[2] if len(ins) > 2 else 0
        return
    bias = np.broadcast_to(ins[2], w.shape[:1]) if len(ins) > 2 else None
    product(x.reshape(-1, k), w.T, outs[0].reshape(-1, w.shape[0]), bias)
