"""How pooling runs on the CPU: tables of windows, chunks cut by shape, and the kernel that fits."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.machine import beyond_cache
from funcnn.kernels.cpu.pool import avg as avg_kernels
from funcnn.kernels.cpu.pool import max as max_kernels
from funcnn.kernels.cpu.pool import max_values as max_value_kernels
from funcnn.kernels.cpu.pool import planes
from funcnn.kernels.cpu.pool.windows import Windows, adaptive_windows, is_whole, three, windows, windows_of
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.lanes import FEW

CHUNK = 1 << 14  # numbers that one chunk reads or writes: some 10 us
TAPS = 1 << 18  # taps of windows that one chunk takes in vector registers: some 30 us, which its tables are worth
NUMBER_NS = 0.25  # nanoseconds on one thread for a number that a kernel reads, or a tap in vector registers
SCALAR_NS, WINDOW_NS = 1.0, 10.0  # ... for a number that a kernel handles alone, and for a window of those


def images(array: np.ndarray) -> np.ndarray:
    """(N, C, *S) as contiguous (N * C, D, H, W)."""
    n, c, *space = array.shape
    whole = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    return whole.reshape(n * c, *(1,) * (3 - len(space)), *space)


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


# ---- largest ----------------------------------------------------------------------------------------------------------
def max_pool(ins: list, outs: list, size: tuple, stride: tuple, padding: tuple, dilation: tuple, **_: Any) -> None:
    """``outs`` = values, and flat indices if they are wanted."""
    if not outs[0].size or planes.maxima(ins[0], outs, (size, stride, padding), dilation):
        return
    x, y = images(ins[0]), images(outs[0])
    size, stride, padding, dilation = three(size, 1), three(stride, 1), three(padding, 0), three(dilation, 1)
    if len(outs) == 1:
        _max_values(x, y, size, stride, padding, dilation)
        return
    argmax = images(outs[1])
    if y.shape[3] < FEW and dilation == (1, 1, 1):
        bounds = windows(x.shape[1:], y.shape[1:], size, stride, padding, True, 0).bounds
        window_max(x, y, argmax, bounds, prod(size))
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
    workers = threads.workers((SCALAR_NS * taps + WINDOW_NS) * y.size)
    max_kernels.window_max(x, y, argmax, bounds, _chunk(y.shape[3] * taps), workers)


def adaptive_max_pool(ins: list, outs: list, out: tuple) -> None:
    """``outs`` = values and flat indices."""
    if outs[0].size and not planes.maxima(ins[0], outs, ()):
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
    how = size, stride, padding, include, divisor
    if not outs[0].size or planes.means(ins[0], outs[0], how):
        return
    x, y = images(ins[0]), images(outs[0])
    table, taps = windows_of(ins[0].shape[2:], outs[0].shape[2:], how), prod(size)
    if y.shape[3] < FEW:
        _window_mean(x, y, table, is_whole(ins[0].shape[2:], outs[0].shape[2:], how))
        return
    workers = threads.workers(NUMBER_NS * taps * y.size)
    rows, past = _blocks(y.size // y.shape[3], y.shape[3] * taps), beyond_cache(x.nbytes + y.nbytes)
    where = three(size, 1), three(stride, 1), three(padding, 0)
    avg_kernels.avg_pool(x, y, table.extents, *where, rows, past, workers)


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
    if outs[0].size and not planes.means(ins[0], outs[0], ()):
        x, y = images(ins[0]), images(outs[0])
        _window_mean(x, y, adaptive_windows(x.shape[1:], y.shape[1:]), prod(out) == 1)


def avg_pool_grad(
    ins: list, outs: list, space: tuple, size: tuple, stride: tuple, padding: tuple, ceil_mode: bool, include: bool,
    divisor: int,
) -> None:  # fmt: skip
    """dx of dy."""
    step = stride[-1] if stride[-1] == 1 or (stride[-1] == 2 and size[-1] > 1) else 0
    _mean_grad(ins[0], outs[0], (size, stride, padding, include, divisor), (size[-1], step, padding[-1]))


def adaptive_avg_pool_grad(ins: list, outs: list, space: tuple, out: tuple) -> None:
    """dx of dy."""
    _mean_grad(ins[0], outs[0], (), (1, 0, 0))


def _mean_grad(dy: np.ndarray, dx: np.ndarray, how: tuple, steps: tuple) -> None:
    """steps: size, stride and padding along the last dimension, as the kernel of rows takes them."""
    if not dx.size or planes.mean_grads(dy, dx, how):
        return
    space, out = dx.shape[2:], dy.shape[2:]
    dy, dx = images(dy), images(dx)
    workers = threads.workers(2 * NUMBER_NS * dx.size)
    if is_whole(space, out, how):
        n = dx.size // dy.size
        avg_kernels.spread_rows(dy.reshape(dy.size), dx.reshape(dy.size, n), _chunk(n), workers)
        return
    rows, past = _blocks(dx.size // dx.shape[3], 3 * dx.shape[3]), beyond_cache(dy.nbytes + dx.nbytes)
    table, over = windows_of(space, out, how), planes.columns(space, out, how, dx.dtype)
    avg_kernels.avg_pool_grad(dy, dx, table.covers, table.extents, over, *steps, rows, past, workers)
