"""How the normalisations run on the CPU: what a unit is, how work is cut into chunks, and scratch memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.memory import empty
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.layer_norm import normalize_rows, normalize_rows_grad
from funcnn.kernels.cpu.norm import PIECE, normalize, normalize_grad, scale_channels

CHUNK = 1 << 16  # numbers in a chunk, about 20 us
SPLIT = 1 << 18  # numbers of a unit that no longer stays in the second-level cache
SHORT = 16  # runs of fewer numbers than this are not worth a vector loop
FORWARD_NS, BACKWARD_NS = 0.3, 0.5  # nanoseconds a number on one thread


def _units(shape: tuple, groups: int) -> tuple[int, tuple, tuple]:
    """Units, their layout, and where their weights lie (see the kernel); ``groups`` is 0 for batch norm."""
    n, c, s = shape
    if not groups:
        return c, (n, s, c * s, s), (c, 1, 0)
    k = c // groups
    return n * groups, (k, s, s, k * s), (groups, k, 1)


def _cut(units: int, layout: tuple) -> tuple[int, int]:
    """Units in a chunk, and blocks in a unit."""
    size = layout[0] * layout[1]
    pieces = layout[0] * -(-layout[1] // PIECE)
    if size > SPLIT or (units < 8 and size > CHUNK // 2):
        return 1, min(pieces, -(-size // CHUNK), 1024)
    return max(1, CHUNK // size), 1


def _channels_first(x: np.ndarray) -> np.ndarray:
    """(N, C, S) as contiguous (1, C, N S)."""
    n, c, s = x.shape
    return np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(1, c, n * s)


def _batch_first(out: np.ndarray, moved: np.ndarray) -> None:
    n, c, s = out.shape
    np.copyto(out, moved.reshape(c, n, s).transpose(1, 0, 2))


def run_units(ins: list, outs: list, eps: float, groups: int) -> None:
    """y, mean, rstd and var of batch norm (``groups`` 0) and group norm."""
    x, y = ins[0], outs[0]
    if not x.size:
        for stat in outs[1:]:
            stat.fill(np.nan)
        return
    short = not groups and x.shape[2] < SHORT and x.shape[0] > 1
    x = _channels_first(x) if short else np.ascontiguousarray(x)
    target = empty(x.shape, x.dtype) if short else y
    units, layout, place = _units(x.shape, groups)
    cut = _cut(units, layout)
    stats = np.empty((3, units))
    parts = np.empty((units * cut[1] if cut[1] > 1 else 1, 3))
    weight, bias, places = _affine(ins[1:], x.dtype, place)
    work = threads.workers(FORWARD_NS * x.size)
    normalize(x, target, weight, bias, stats, parts, layout, places, cut, eps, work)
    if short:
        _batch_first(y, target)
    for out, stat in zip(outs[1:], stats, strict=True):
        out[...] = stat.reshape(out.shape)


def _affine(given: list, dtype: Any, place: tuple) -> tuple:
    """Weight, bias and where each lies; those that are not given are one 1 and one 0."""
    weight = np.ascontiguousarray(given[0]) if given else np.ones(1, dtype)
    bias = np.ascontiguousarray(given[1]) if len(given) > 1 else np.zeros(1, dtype)
    none = (1, 0, 0)
    return weight, bias, (place if given else none, place if len(given) > 1 else none)


def run_units_grad(ins: list, outs: list, groups: int) -> None:
    """dx, and with a weight dweight and dbias, of dy, x, mean, rstd and the weight."""
    dy, x, mean, rstd = ins[:4]
    if not x.size:
        for out in outs[1:]:
            out.fill(0)
        return
    short = not groups and x.shape[2] < SHORT and x.shape[0] > 1
    dy, x = (_channels_first(a) if short else np.ascontiguousarray(a) for a in (dy, x))
    dx = empty(x.shape, x.dtype) if short else outs[0]
    units, layout, place = _units(x.shape, groups)
    weight, _, (where, _) = _affine(ins[4:], x.dtype, place)
    dots = np.empty((units * layout[0] * -(-layout[1] // PIECE), 3))
    dboth = np.zeros((2, x.shape[1]))
    normalize_grad(
        dy, x, dx, weight, mean.reshape(-1), rstd.reshape(-1), dboth[0], dboth[1], dots, np.empty((units, 3)), layout,
        (where, place), _cut(units, layout), threads.workers(BACKWARD_NS * x.size),
    )  # fmt: skip
    if short:
        _batch_first(outs[0], dx)
    for out, total in zip(outs[1:], dboth, strict=False):
        out[...] = total


def run_scale(ins: list, outs: list, eps: float) -> None:
    """y = (x - mean) / sqrt(var + eps) * weight + bias for x (N, C, S)."""
    x, mean, var, *affine = (np.ascontiguousarray(a) for a in ins)
    if not x.size:
        return
    scale = 1.0 / np.sqrt(var.astype(np.float64) + eps)
    if affine:
        scale *= affine[0]
    shift = affine[1] if len(affine) > 1 else np.zeros_like(mean)
    each = max(1, CHUNK // (x.shape[1] if x.shape[2] == 1 else x.shape[2]))
    work = threads.workers(FORWARD_NS * x.size)
    scale_channels(x, outs[0], mean, scale.astype(x.dtype), shift, each, work)


# ---- rows -----------------------------------------------------------------------------------------------------------
def run_rows(ins: list, outs: list, eps: float, centred: bool) -> None:
    """y, mean and rstd of layer norm and RMS norm, for x (N, G, K) and weights (G, K)."""
    x, y = np.ascontiguousarray(ins[0]), outs[0]
    if not x.size:
        for stat in outs[1:]:
            stat.fill(np.nan)
        return
    n, g, k = x.shape
    weight = np.ascontiguousarray(ins[1]) if len(ins) > 1 else np.ones(g * k, x.dtype)
    bias = np.ascontiguousarray(ins[2]) if len(ins) > 2 else np.zeros(g * k, x.dtype)
    normalize_rows(
        x.reshape(n * g, k), y.reshape(n * g, k), weight.reshape(-1), bias.reshape(-1), outs[1].reshape(-1),
        outs[2].reshape(-1), max(1, CHUNK // k), g, eps, centred, threads.workers(FORWARD_NS * x.size),
    )  # fmt: skip


def run_rows_grad(ins: list, outs: list, centred: bool) -> None:
    """dx, and with a weight dweight and dbias, of dy, x, mean, rstd and the weight."""
    dy, x, mean, rstd = (np.ascontiguousarray(a) for a in ins[:4])
    if not x.size:
        for out in outs[1:]:
            out.fill(0)
        return
    n, g, k = x.shape
    weight = np.ascontiguousarray(ins[4]) if len(ins) > 4 else np.ones(g * k, x.dtype)
    each = min(256, max(1, CHUNK // k))
    dboth = np.zeros((g, 2, k))
    normalize_rows_grad(
        dy.reshape(n * g, k), x.reshape(n * g, k), outs[0].reshape(n * g, k), weight.reshape(-1), mean.reshape(-1),
        rstd.reshape(-1), dboth, empty((g * -(-n // each), 2, k), x.dtype), each, g, centred,
        threads.workers(BACKWARD_NS * x.size),
    )  # fmt: skip
    for out, at in zip(outs[1:], (0, 1), strict=False):
        out[...] = dboth[:, at]
