"""How the normalisations run on the CPU: what a unit is, how work is cut into chunks, and scratch memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.machine import beyond_cache
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.cpu.norm.layer_norm import normalize_rows, normalize_rows_grad
from funcnn.kernels.cpu.norm.planes import normalize, normalize_grad
from funcnn.kernels.cpu.norm.runs import PIECE
from funcnn.kernels.cpu.norm.scale import scale_channels
from funcnn.kernels.cpu.threads import number as threads

CHUNK = 1 << 16  # numbers in a chunk, about 20 us
LEAST = 256  # numbers that cost as much as a row or unit does beside them
SPLIT = 1 << 18  # numbers of a unit that no longer stays in the second-level cache
SHORT = 16  # runs of fewer numbers than this are not worth a vector loop
FORWARD_NS, BACKWARD_NS = 0.3, 0.5  # nanoseconds a number on one thread
ROW_NS, UNIT_NS = 30.0, 80.0  # nanoseconds a row, and a unit, however short


class Plan(NamedTuple):
    """How a shape is normalised: see ``layout_of`` in the kernel's file for the numbers."""

    numbers: np.ndarray
    units: int
    parts: int  # blocks of units, if units are cut into blocks
    dots: int  # pieces of all units, and the units


@lru_cache(maxsize=256)
def plan(shape: tuple, groups: int, weight: bool, bias: bool) -> Plan:
    """The plan for x (N, C, S); ``groups`` is 0 for batch norm; whether there is a weight and a bias for each channel."""
    n, c, s = shape
    if groups:
        k = c // groups
        units, layout, place = n * groups, (k, s, s, k * s), (groups, k, 1)
    else:
        units, layout, place = c, (n, s, c * s, s), (c, 1, 0)
    size, pieces = layout[0] * s, layout[0] * -(-s // PIECE)
    each, blocks = max(1, CHUNK // (size + LEAST)), 1
    if size > SPLIT or (units < 8 and size > CHUNK // 2):
        each, blocks = 1, min(pieces, -(-size // CHUNK), 1024)
    places = [place if given else (1, 0, 0) for given in (weight, bias)]
    numbers = np.array([*layout, *places[0], *places[1], each, blocks])
    return Plan(numbers, units, units * blocks if blocks > 1 else 0, units * (pieces + 1))


def _flat(x: np.ndarray) -> np.ndarray:
    """(N, C, ...) as contiguous (N, C, S)."""
    return np.ascontiguousarray(x).reshape(*x.shape[:2], -1)


def _channels_first(x: np.ndarray) -> np.ndarray:
    """(N, C, S) as contiguous (1, C, N S)."""
    n, c, s = x.shape
    return np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(1, c, n * s)


def _batch_first(out: np.ndarray, moved: np.ndarray) -> None:
    n, c, s = out.shape
    np.copyto(out, moved.reshape(c, n, s).transpose(1, 0, 2))


def _affine(given: list, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias; those that are not given are one 1 and one 0."""
    weight = np.ascontiguousarray(given[0]) if given else np.ones(1, dtype)
    return weight, np.ascontiguousarray(given[1]) if len(given) > 1 else np.zeros(1, dtype)


def _room(work: int, dtype: Any) -> np.ndarray:
    """The kernels' scratch for ``work`` threads."""
    return fresh(work * PIECE, dtype)


def _past(x: np.ndarray, residuals: bool) -> bool:
    """Whether to write y past the cache. Where there are residuals a gradient may be taken: dy and dx will pass through the
    cache before x is read again, and y, which is kept, has got memory that is not in it. Else y has that of an output before.
    """
    return beyond_cache((4 if residuals else 2) * x.nbytes)


def run_units(ins: list, outs: list, eps: float, groups: int, residuals: bool = True) -> None:
    """y, and with residuals mean, rstd and var, of batch norm (``groups`` 0) and group norm."""
    if not ins[0].size:
        for stat in outs[1:]:
            stat.fill(np.nan)
        return
    x, y = _flat(ins[0]), _flat(outs[0])
    short = not groups and x.shape[2] < SHORT and x.shape[0] > 1
    x = _channels_first(x) if short else x
    target = empty(x.shape, x.dtype) if short else y
    how = plan(x.shape, groups, len(ins) > 1, len(ins) > 2)
    stats = [out.reshape(-1) for out in outs[1:]] if residuals else [*fresh((3, how.units), x.dtype)]
    work = threads.workers(FORWARD_NS * x.size + UNIT_NS * how.units)
    parts = fresh((how.parts, 3))
    normalize(
        x, target, *_affine(ins[1:], x.dtype), *stats, parts, _room(work, x.dtype), how.numbers, eps,
        _past(x, residuals), work,
    )  # fmt: skip
    if short:
        _batch_first(y, target)


def run_units_grad(ins: list, outs: list, groups: int) -> None:
    """dx, and with a weight dweight and dbias, of dy, x, mean, rstd and the weight."""
    if not ins[1].size:
        for out in outs[1:]:
            out.fill(0)
        return
    (dy, x), (mean, rstd), target = (_flat(a) for a in ins[:2]), ins[2:4], _flat(outs[0])
    short = not groups and x.shape[2] < SHORT and x.shape[0] > 1
    dy, x = (_channels_first(a) if short else a for a in (dy, x))
    dx = empty(x.shape, x.dtype) if short else target
    how = plan(x.shape, groups, len(ins) > 4, True)
    weight, _ = _affine(ins[4:], x.dtype)
    dboth = fresh((2, x.shape[1]))
    work = threads.workers(BACKWARD_NS * x.size + UNIT_NS * how.units)
    normalize_grad(
        dy, x, dx, weight, mean.reshape(-1), rstd.reshape(-1), dboth[0], dboth[1], fresh((how.dots, 3)),
        _room(work, x.dtype), how.numbers, beyond_cache(3 * x.nbytes), work,
    )  # fmt: skip
    if short:
        _batch_first(target, dx)
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
    room, past = _room(work, x.dtype), beyond_cache(2 * x.nbytes)
    scale_channels(x, outs[0], mean, scale.astype(x.dtype), shift, each, room, past, work)


# ---- rows -----------------------------------------------------------------------------------------------------------
def run_rows(ins: list, outs: list, eps: float, centred: bool, residuals: bool = True) -> None:
    """y, and with residuals mean and rstd, of layer norm and RMS norm, for x (N, G, K) and weights (G K)."""
    x, y = np.ascontiguousarray(ins[0]), outs[0]
    if not x.size:
        for stat in outs[1:]:
            stat.fill(np.nan)
        return
    n, g, k = x.shape
    weight = np.ascontiguousarray(ins[1]) if len(ins) > 1 else np.ones(g * k, x.dtype)
    bias = np.ascontiguousarray(ins[2]) if len(ins) > 2 else np.zeros(g * k, x.dtype)
    stats = [out.reshape(-1) for out in outs[1:]] if residuals else [*fresh((2, n * g), x.dtype)]
    work = threads.workers(FORWARD_NS * x.size + ROW_NS * n * g)
    normalize_rows(
        x.reshape(n * g, k), y.reshape(n * g, k), weight, bias, *stats, max(1, CHUNK // (k + LEAST)), g, eps, centred,
        _room(work, x.dtype), _past(x, residuals), work,
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
    dboth, work = fresh((g, 2, k)), threads.workers(BACKWARD_NS * x.size + ROW_NS * n * g)
    normalize_rows_grad(
        dy.reshape(n * g, k), x.reshape(n * g, k), outs[0].reshape(n * g, k), weight, mean.reshape(-1),
        rstd.reshape(-1), dboth, empty((g * -(-n // each), 2, k), x.dtype), each, g, centred,
        _room(work, x.dtype), beyond_cache(3 * x.nbytes), work,
    )  # fmt: skip
    for out, at in zip(outs[1:], (0, 1), strict=False):
        out[...] = dboth[:, at].reshape(-1)
