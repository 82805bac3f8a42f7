"""The tables of interpolation: which input pixels make an output pixel, with which weights, in PyTorch's arithmetic.

An axis is resampled from ``n`` to ``m`` pixels. Pixel i lies at ``(i + 1/2) n/m - 1/2`` of the input, or, with aligned
corners, at ``i (n-1)/(m-1)``; a given scale factor s takes the place of m/n. PyTorch computes this in the tensor's dtype, so
float32 tables have float32's roundings.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.vector.table_taps import ABSENT
from funcnn.kernels.cpu.vector.tap_tables import padded, widths

CUBIC, CUBIC_ANTIALIAS = -0.75, -0.5  # the parameter of the kernel (Keys, 1981), as PyTorch has it


class Axis(NamedTuple):
    """How one axis is resampled. scale: the user's factor, or 0."""

    mode: str
    n: int
    m: int
    scale: float
    align_corners: bool
    antialias: bool


class Table(NamedTuple):
    """Taps of each output: source element and weight, (taps, outputs) flat; an element below 0 is no tap.

    columns: the same as ``kernels.cpu.vector.table_taps`` takes it. span: the distance of the first to the last input row that an
    output needs, and 1.
    """

    source: np.ndarray
    weight: np.ndarray
    taps: int
    columns: tuple[np.ndarray, np.ndarray, int, int]  # index, weight, taps, pitch
    span: int


@lru_cache(maxsize=256)
def table(axis: Axis, dtype: np.dtype, transpose: bool) -> Table:
    """Returns the table of an axis, or of the transposed map (m to n pixels)."""
    index, weight = taps(axis, dtype.type)
    if transpose:
        index, weight = _transposed(index, weight, axis.n)
    real = index >= 0
    low = np.where(real, index, np.iinfo(np.int32).max).min(0)
    span = int(np.where(real.any(0), index.max(0) - low, 0).max(initial=0)) + 1
    factors = np.where(real, weight, 0).astype(dtype)
    columns = padded(np.where(real, index, ABSENT)), padded(factors), *widths(index)
    return Table(np.ascontiguousarray(index, np.int64).reshape(-1), factors.reshape(-1), index.shape[0], columns, span)


@lru_cache(maxsize=256)
def rows_of(axis: Axis, dtype: np.dtype, transpose: bool, width: int, ring: int) -> tuple:
    """Returns what ``kernels.cpu.sampling.interpolate`` wants to know of rows: numbers, places, slots, weights and taps."""
    known = table(axis, dtype, transpose)
    slots = known.source % ring if ring else known.source
    places = np.where(known.source < 0, -1, slots * width)
    return known.source, places, slots, known.weight, known.taps


def taps(axis: Axis, kind: Any) -> tuple[np.ndarray, np.ndarray]:
    """Source pixel (-1: none) and weight of each tap of each output, (taps, outputs), computed in this float type."""
    return _nearest(axis, kind) if axis.mode.startswith("nearest") else _MODES[axis.mode](axis, kind)


def _transposed(index: np.ndarray, weight: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the taps grouped by input pixel instead, each group in the order of the outputs."""
    taps, m = index.shape
    source, target, amount = index.T.reshape(-1), np.repeat(np.arange(m), taps), weight.T.reshape(-1)
    there = source >= 0
    source, target, amount = source[there], target[there], amount[there]
    order = np.argsort(source, kind="stable")
    source, target, amount = source[order], target[order], amount[order]
    counts = np.bincount(source, minlength=n)
    place = np.arange(source.size) - np.repeat(np.cumsum(counts) - counts, counts)
    inverse = np.full((max(1, int(counts.max(initial=0))), n), -1, np.int64)
    weights = np.zeros(inverse.shape, weight.dtype)
    inverse[place, source], weights[place, source] = target, amount
    return inverse, weights


def _step(axis: Axis, kind: Any) -> Any:
    """Input pixels per output pixel."""
    if axis.align_corners:
        return kind(axis.n - 1) / kind(axis.m - 1) if axis.m > 1 else kind(0)
    return kind(1.0 / axis.scale) if axis.scale > 0 else kind(axis.n) / kind(axis.m)


def _places(axis: Axis, kind: Any) -> np.ndarray:
    """Returns where in the input each output pixel lies."""
    i, step = np.arange(axis.m, dtype=kind), _step(axis, kind)
    return step * i if axis.align_corners else step * (i + kind(0.5)) - kind(0.5)


def _nearest(axis: Axis, kind: Any) -> tuple[np.ndarray, np.ndarray]:
    i, step = np.arange(axis.m, dtype=kind), _step(axis, kind)
    if axis.mode == "nearest-exact":
        i = i + kind(0.5)
    index = np.minimum(np.floor((i * step).astype(np.float32)).astype(np.int64), axis.n - 1)
    return index[None], np.ones((1, axis.m), kind)


def _split(places: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixel at or before each place, and the way past it in [0, 1]."""
    index = np.minimum(np.floor(places).astype(np.int64), n - 1)
    return index, np.clip(places - index.astype(places.dtype), 0, 1).astype(places.dtype)


def _linear(axis: Axis, kind: Any) -> tuple[np.ndarray, np.ndarray]:
    if axis.antialias:
        return _antialiased(axis, kind, 2, lambda x: np.maximum(1 - np.abs(x), 0))
    places = np.arange(axis.m, dtype=kind) if axis.n == axis.m else np.maximum(_places(axis, kind), kind(0))
    index, past = _split(places, axis.n)
    return np.stack([index, np.minimum(index + 1, axis.n - 1)]), np.stack([kind(1) - past, past])


def _near(x: np.ndarray, a: float) -> np.ndarray:
    """Returns the cubic kernel for |x| <= 1."""
    return ((x.dtype.type(a + 2) * x - x.dtype.type(a + 3)) * x) * x + x.dtype.type(1)


def _far(x: np.ndarray, a: float) -> np.ndarray:
    """Returns the cubic kernel for 1 < |x| < 2."""
    one = x.dtype.type
    return ((one(a) * x - one(5 * a)) * x + one(8 * a)) * x - one(4 * a)


def _cubic_antialias(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    inner, outer = _near(x, CUBIC_ANTIALIAS), _far(x, CUBIC_ANTIALIAS)
    return np.where(x < 1, inner, np.where(x < 2, outer, x.dtype.type(0)))


def _cubic(axis: Axis, kind: Any) -> tuple[np.ndarray, np.ndarray]:
    if axis.antialias:
        return _antialiased(axis, kind, 4, _cubic_antialias)
    index, past = _split(_places(axis, kind), axis.n)
    taps = np.clip(index + np.arange(-1, 3)[:, None], 0, axis.n - 1)
    left, right = past, kind(1) - past
    weights = _far(left + kind(1), CUBIC), _near(left, CUBIC), _near(right, CUBIC), _far(right + kind(1), CUBIC)
    return taps, np.stack(weights)


def _antialiased(axis: Axis, kind: Any, size: int, shape: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel widened to the step where pixels are lost, normalised over the pixels inside the image."""
    step = _step(axis, kind)
    reach = kind(size * 0.5) * step if step >= 1 else kind(size * 0.5)
    squeeze = kind(1) / step if step >= 1 else kind(1)
    most = int(np.ceil(reach)) * 2 + 1
    centre = step * (np.arange(axis.m, dtype=kind) + kind(0.5))
    first = np.maximum((centre - reach + kind(0.5)).astype(np.int64), 0)
    last = np.minimum((centre + reach + kind(0.5)).astype(np.int64), axis.n)
    index = first + np.arange(most)[:, None]
    inside = index < np.minimum(last, first + most)
    weight = np.where(inside, shape(((index - centre.astype(kind)).astype(kind) + kind(0.5)) * squeeze), kind(0))
    total = weight.sum(0)
    return np.where(inside, index, -1), (weight / np.where(total == 0, 1, total)).astype(kind)


_MODES = {"linear": _linear, "cubic": _cubic}
