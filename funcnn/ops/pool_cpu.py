"""How pooling runs on the CPU: tables of windows, chunks cut by shape, and the kernel that fits."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu import avg_pool as avg_kernels
from funcnn.kernels.cpu import max_pool as max_kernels
from funcnn.kernels.cpu import max_values as max_value_kernels
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.lanes import FEW
from funcnn.kernels.cpu.stream import beyond_cache

CHUNK = 1 << 14  # numbers that one chunk reads or writes: some 10 us
TAPS = 1 << 18  # taps of windows that one chunk takes in vector registers: some 30 us, which its tables are worth
NUMBER_NS = 0.25  # nanoseconds on one thread for a number that a kernel reads, or a tap in vector registers
SCALAR_NS = 1.0  # ... for a number that a kernel handles alone


def three(value: tuple, fill: int) -> Any:
    """One number for each of the three dimensions that kernels know."""
    return (fill,) * (3 - len(value)) + tuple(value)


def images(array: np.ndarray) -> np.ndarray:
    """(N, C, *S) as contiguous (N * C, D, H, W)."""
    n, c, *space = array.shape
    return np.ascontiguousarray(array).reshape(n * c, *three(tuple(space), 1))


def rows_of(array: np.ndarray) -> np.ndarray:
    """(N, C, *S) as contiguous (N * C, pixels)."""
    n, c, *space = array.shape
    return np.ascontiguousarray(array).reshape(n * c, prod(space))


def _chunk(work: int) -> int:
    """How many rows of ``work`` numbers make a chunk."""
    return max(1, CHUNK // max(work, 1))


def _blocks(rows: int, taps: int) -> int:
    """How many of ``rows`` rows of ``taps`` taps each make a chunk; there are 16 chunks or more where rows suffice."""
    return max(1, min(TAPS // max(taps, 1), rows // 16))


# ---- windows ----------------------------------------------------------------------------------------------------------
class Windows(NamedTuple):
    """Tables over D, H and W one after another; see ``kernels.cpu.avg_pool``."""

    bounds: np.ndarray  # (1, outputs, 2): start and end of each window in the input
    covers: np.ndarray  # (inputs, 2): the first window over each pixel, and the last plus 1
    extents: np.ndarray  # (outputs,): factors of the divisor


def _windows(space: tuple, starts: list, ends: list, extents: list) -> Windows:
    covers = [
        np.stack([np.searchsorted(end, np.arange(s), "right"), np.searchsorted(start, np.arange(s), "right")], 1)
        for s, start, end in zip(space, starts, ends, strict=True)
    ]
    bounds = np.stack([np.concatenate(starts), np.concatenate(ends)], 1)
    return Windows(bounds[None].astype(np.int64), np.concatenate(covers).astype(np.int64), np.concatenate(extents))


@lru_cache(maxsize=256)
def windows(
    space: tuple, out: tuple, size: tuple, stride: tuple, padding: tuple, include: bool, divisor: int
) -> Windows:
    """Windows of one size; ``divisor`` (0: none) replaces the extents, which count padding where ``include`` says so."""
    starts, ends, extents = [], [], []
    for s, o, k, t, p in zip(space, out, size, stride, padding, strict=True):
        start = np.arange(o) * t - p
        end = np.minimum(start + k, s + p)
        inside = np.clip(start, 0, s), np.clip(end, 0, s)
        starts.append(inside[0])
        ends.append(inside[1])
        extents.append(np.maximum(end - start if include else inside[1] - inside[0], 1))
    if divisor:
        extents = [np.full(o, divisor if axis == 0 else 1) for axis, o in enumerate(out)]
    return _windows(space, starts, ends, extents)


@lru_cache(maxsize=256)
def adaptive_windows(space: tuple, out: tuple) -> Windows:
    """Window i of o over s pixels: floor(i s / o) to ceil((i + 1) s / o)."""
    starts = [np.arange(o) * s // o for s, o in zip(space, out, strict=True)]
    ends = [-(-np.arange(1, o + 1) * s // o) for s, o in zip(space, out, strict=True)]
    return _windows(space, starts, ends, [end - start for start, end in zip(starts, ends, strict=True)])


# ---- largest ----------------------------------------------------------------------------------------------------------
def max_pool(ins: list, outs: list, size: tuple, stride: tuple, padding: tuple, dilation: tuple, **_: Any) -> None:
    """``outs`` = values, and flat indices if they are wanted."""
    if not outs[0].size:
        return
    if len(outs) == 1:
        _max_values(
            images(ins[0]), images(outs[0]), three(size, 1), three(stride, 1), three(padding, 0), three(dilation, 1)
        )
        return
    x, y, argmax = images(ins[0]), images(outs[0]), images(outs[1])
    size, stride, padding, dilation = three(size, 1), three(stride, 1), three(padding, 0), three(dilation, 1)
    if y.shape[3] < FEW and dilation == (1, 1, 1):
        window_max(x, y, argmax, windows(x.shape[1:], y.shape[1:], size, stride, padding, True, 0).bounds, prod(size))
        return
    taps = prod(size)
    workers = threads.workers(NUMBER_NS * taps * y.size)
    past = beyond_cache(x.nbytes + y.nbytes + argmax.nbytes)
    rows = _blocks(y.size // y.shape[3], y.shape[3] * taps)
    max_kernels.max_pool(x, y, argmax, size, stride, padding, dilation, rows, past, workers)


def _max_values(x: np.ndarray, y: np.ndarray, size: tuple, *where: tuple) -> None:
    taps = y.shape[3] * prod(size)
    rows, past = _blocks(y.size // y.shape[3], taps), beyond_cache(x.nbytes + y.nbytes)
    workers = threads.workers(NUMBER_NS / 2 * max(prod(size) * y.size, x.size))
    max_value_kernels.max_values(x, y, size, *where, rows, past, workers)


def window_max(x: np.ndarray, y: np.ndarray, argmax: np.ndarray, bounds: np.ndarray, taps: int) -> None:
    """The kernel over windows of about ``taps`` pixels, given by their bounds, of four-dimensional arrays."""
    workers = threads.workers(SCALAR_NS * taps * y.size)
    max_kernels.window_max(x, y, argmax, bounds, _chunk(y.shape[3] * taps), workers)


def adaptive_max_pool(ins: list, outs: list, out: tuple) -> None:
    """``outs`` = values and flat indices."""
    if outs[0].size:
        x, y, argmax = images(ins[0]), images(outs[0]), images(outs[1])
        window_max(x, y, argmax, adaptive_windows(x.shape[1:], y.shape[1:]).bounds, -(-x.size // y.size))


def pool_scatter(ins: list, outs: list, size: tuple) -> None:
    """dx of dy and argmax."""
    if outs[0].size:
        dy, argmax, dx = (rows_of(a) for a in (*ins, outs[0]))
        _by_image(max_kernels.pool_scatter, dy, argmax, dx)


def pool_gather(ins: list, outs: list) -> None:
    """y of x and argmax."""
    if outs[0].size:
        x, argmax, y = (rows_of(a) for a in (*ins, outs[0]))
        _by_image(max_kernels.pool_gather, x, argmax, y)


def max_unpool(ins: list, outs: list, size: tuple) -> None:
    """y of x and argmax."""
    if outs[0].size:
        x, argmax, y = (rows_of(a) for a in (*ins, outs[0]))
        _by_image(max_kernels.max_unpool, x, argmax, y)


def _by_image(kernel: Any, source: np.ndarray, argmax: np.ndarray, out: np.ndarray) -> None:
    work = SCALAR_NS * argmax.size + NUMBER_NS * out.size
    kernel(source, argmax, out, _chunk(argmax.shape[1] + out.shape[1]), threads.workers(work))


# ---- mean -------------------------------------------------------------------------------------------------------------
def avg_pool(
    ins: list, outs: list, size: tuple, stride: tuple, padding: tuple, ceil_mode: bool, include: bool, divisor: int
) -> None:
    """``outs[0]`` = the means."""
    if not outs[0].size:
        return
    x, y = images(ins[0]), images(outs[0])
    size, stride, padding = three(size, 1), three(stride, 1), three(padding, 0)
    table = windows(x.shape[1:], y.shape[1:], size, stride, padding, include, divisor)
    if y.shape[3] < FEW:
        _window_mean(x, y, table, divisor == 0 and size == x.shape[1:] and not any(padding))
        return
    taps = prod(size)
    workers = threads.workers(NUMBER_NS * taps * y.size)
    past = beyond_cache(x.nbytes + y.nbytes)
    rows = _blocks(y.size // y.shape[3], y.shape[3] * taps)
    avg_kernels.avg_pool(x, y, table.extents, size, stride, padding, rows, past, workers)


def _window_mean(x: np.ndarray, y: np.ndarray, table: Windows, whole: bool) -> None:
    """``whole``: y is one pixel, the mean of all."""
    workers = threads.workers(NUMBER_NS * x.size)
    if whole:
        n = x.size // y.size
        avg_kernels.mean_rows(x.reshape(y.size, n), y.reshape(y.size), _chunk(n), workers)
        return
    rows = _chunk(x.size // max(y.size // y.shape[3], 1))
    avg_kernels.window_mean(x, y, table.bounds[0], table.extents, rows, workers)


def adaptive_avg_pool(ins: list, outs: list, out: tuple) -> None:
    """``outs[0]`` = the means."""
    if outs[0].size:
        x, y = images(ins[0]), images(outs[0])
        _window_mean(x, y, adaptive_windows(x.shape[1:], y.shape[1:]), prod(out) == 1)


def avg_pool_grad(
    ins: list, outs: list, space: tuple, size: tuple, stride: tuple, padding: tuple, ceil_mode: bool, include: bool,
    divisor: int,
) -> None:  # fmt: skip
    """dx of dy."""
    if not outs[0].size:
        return
    dy, dx = images(ins[0]), images(outs[0])
    size, stride, padding = three(size, 1), three(stride, 1), three(padding, 0)
    table = windows(dx.shape[1:], dy.shape[1:], size, stride, padding, include, divisor)
    whole = dy.shape[1:] == (1, 1, 1) and divisor == 0 and size == dx.shape[1:] and not any(padding)
    step = stride[2] if stride[2] == 1 or (stride[2] == 2 and size[2] > 1) else 0
    _window_mean_grad(dy, dx, table, whole, (size[2], step, padding[2]))


def _window_mean_grad(dy: np.ndarray, dx: np.ndarray, table: Windows, whole: bool, columns: tuple) -> None:
    workers = threads.workers(2 * NUMBER_NS * dx.size)
    if whole:
        n = dx.size // dy.size
        avg_kernels.spread_rows(dy.reshape(dy.size), dx.reshape(dy.size, n), _chunk(n), workers)
        return
    rows, past = _blocks(dx.size // dx.shape[3], 3 * dx.shape[3]), beyond_cache(dy.nbytes + dx.nbytes)
    avg_kernels.avg_pool_grad(dy, dx, table.covers, table.extents, *columns, rows, past, workers)


def adaptive_avg_pool_grad(ins: list, outs: list, space: tuple, out: tuple) -> None:
    """dx of dy."""
    if outs[0].size:
        dy, dx = images(ins[0]), images(outs[0])
        _window_mean_grad(dy, dx, adaptive_windows(dx.shape[1:], dy.shape[1:]), prod(out) == 1, (1, 0, 0))
