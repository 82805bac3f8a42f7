"""When pooling goes by tables of whole planes (``kernels.cpu.pool.plane``) instead of by rows, and the tables it takes.

Of both ways the cheaper one by a model is taken: nanoseconds for a row of outputs, measured on one core. A table costs a load
for each tap; rows cost a fixed amount, then little for each number, as long as windows are a step of 1 or 2 apart.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.pool import plane as kernels
from funcnn.kernels.cpu.pool.windows import is_whole, three, windows_of
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.table_taps import ABSENT
from funcnn.kernels.cpu.vector.tap_tables import PlaneTable, listed, padded, plane_table, table_bytes, widths

TAP_NS, PEAK_NS = 0.35, 0.36  # of a tap by table: added, compared
MOST = 1 << 16  # bytes of a table: it stays in the second-level cache
CHUNK = 1 << 13  # taps of a chunk: some 4 us


class Rows(NamedTuple):
    """What a row of outputs costs by the kernels of rows."""

    fixed: float
    number: float  # of an input row under the windows
    split: float  # of a number that is split by phase, for steps above 2; twice as much above 4
    vector: float  # of a tap of 32 windows
    alone: float = 0.0  # of a tap along the row of a single window
    lines: bool = False  # whether each input row is split and handled alone, not the sum or maximum of all


MEANS, PEAKS, MAXIMA = Rows(28, 0.06, 0.2, 0.5), Rows(28, 0.06, 0.2, 0.5), Rows(35, 0.1, 0.3, 1.6, lines=True)
ANY_MEANS, ANY_MAXIMA = Rows(30, 0.1, 0, 0, 0.45), Rows(30, 0, 0, 0, 2.5, True)  # windows of any bounds
GRADS, ANY_GRADS = Rows(20, 0.1, 0, 0.5), Rows(20, 0.1, 0, 0, 0.35)


def row_ns(rows: Rows, width: int, outputs: int, size: tuple, step: int) -> float:
    """Nanoseconds of a row of outputs whose windows have this size in an image of this width."""
    lines, each = size[0] * size[1], size[0] * size[1] if rows.lines else 1
    split = rows.split * each * width * (0 if step <= 2 else 1 if step <= 4 else 2)
    taps = rows.vector * lines * size[2] * -(-outputs // 32) + rows.alone * each * size[2] * outputs
    return rows.fixed + rows.number * lines * width + split + taps


def _split(table: np.ndarray, sizes: tuple) -> list[np.ndarray]:
    """Ranges along the axes out of those one after another."""
    return np.split(table, np.cumsum(sizes)[:-1])


def _extent(ranges: list[np.ndarray]) -> tuple:
    return tuple(int((span[:, 1] - span[:, 0]).max(initial=1)) for span in ranges)


def _cheaper(ranges: list[np.ndarray], tap_ns: float, rows: Rows, width: int, step: int) -> bool:
    """Whether a table of these ranges is small, and cheaper than rows."""
    size, (depth, height, outputs) = _extent(ranges), (len(span) for span in ranges)
    taps = size[0] * size[1] * size[2]
    return table_bytes(taps, depth * height * outputs) <= MOST and tap_ns * taps * outputs <= row_ns(
        rows, width, outputs, size, step
    )


Found = tuple[PlaneTable, np.ndarray] | None


def _ways(rows: Rows, any_rows: Rows, how: tuple) -> tuple[Rows, int]:
    """What rows of such windows cost, and how far apart they are in a row."""
    return (rows, how[1][-1]) if how else (any_rows, 1)


def _pieces(space: tuple, out: tuple, how: tuple, least: int) -> tuple[tuple, tuple]:
    """The sizes of a plane and its outputs, where a line of windows beside one another, ``least`` or more apart, is as many
    planes as it has windows, so that its table is short however long it is."""
    if len(space) > 1 or not how:
        return space, out
    (size,), (step,), (padding,) = how[:3]
    return ((step,), (1,)) if size <= step >= least and padding == 0 and space[0] == out[0] * step else (space, out)


@lru_cache(maxsize=256)
def _maxima(space: tuple, out: tuple, how: tuple, dilation: tuple, places: bool) -> PlaneTable | None:
    rows, step = _ways(MAXIMA if places else PEAKS, ANY_MAXIMA, how)
    if not places and max(dilation, default=1) == 1:
        space, out = _pieces(space, out, how, 5)
    if how:  # as they are, over the edges
        size, stride, padding = (three(value, fill) for value, fill in zip(how, (1, 1, 0), strict=False))
        starts = [np.arange(o) * t - p for o, t, p in zip(three(out, 1), stride, padding, strict=True)]
        ranges = [np.stack([start, start + k], 1) for start, k in zip(starts, size, strict=True)]
    else:
        ranges = _split(windows_of(space, out, how).bounds[0], three(out, 1))
    if not _cheaper(ranges, PEAK_NS, rows, space[-1], step):
        return None
    found = listed(ranges, three(space, 1), three(dilation, 1))
    if (found < 0).all(0).any():  # a window of nothing but padding
        return None
    return plane_table(found, prod(space), True)


@lru_cache(maxsize=256)
def _means(space: tuple, out: tuple, how: tuple, dtype: np.dtype) -> Found:
    (rows, step), windows = _ways(MEANS, ANY_MEANS, how), windows_of(space, out, how)
    ranges = _split(windows.bounds[0], three(out, 1))
    if is_whole(space, out, how) or not _cheaper(
        ranges, TAP_NS, rows, space[-1], step
    ):  # the mean of all is a sum of a row
        return None
    table = plane_table(listed(ranges, three(space, 1)), prod(space), False)
    return table, table.each(_divisors(windows.extents, out).astype(dtype))


@lru_cache(maxsize=256)
def _mean_grads(space: tuple, out: tuple, how: tuple, dtype: np.dtype) -> Found:
    if is_whole(space, out, how):
        return None
    space, out = _pieces(space, out, how, 3)
    known = how and (how[1][-1] == 1 or (how[1][-1] == 2 and how[0][-1] > 1))
    windows, rows = windows_of(space, out, how), GRADS if known else ANY_GRADS
    ranges = _split(windows.covers, three(space, 1))
    if not _cheaper(ranges, TAP_NS, rows, out[-1], 1):
        return None
    places = listed(ranges, three(out, 1))
    table = plane_table(places, prod(out), False)
    return table, table.each(_shares(_divisors(windows.extents, out), places, dtype))


@lru_cache(maxsize=256)
def columns(space: tuple, out: tuple, how: tuple, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int, int]:
    """The windows over each column, and the share of each in it, as ``kernels.cpu.pool.avg`` takes them."""
    windows = windows_of(space, out, how)
    places = listed([windows.covers[-space[-1] :]], (out[-1],))
    shares = _shares(windows.extents[-out[-1] :], places, dtype)
    return padded(np.where(places < 0, ABSENT, places)), padded(shares), *widths(places)


def _shares(divisors: np.ndarray, places: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.where(places < 0, 0, 1 / divisors[places]).astype(dtype)


def _divisors(extents: np.ndarray, out: tuple) -> np.ndarray:
    """What each output is divided by, in order."""
    deep, high, wide = _split(extents, three(out, 1))
    return (deep[:, None, None] * high[:, None] * wide).reshape(-1)


# ---- runs -------------------------------------------------------------------------------------------------------------
def _cut(sizes: tuple, count: int, tap_ns: float) -> tuple[int, int]:
    """Planes of a chunk, whole groups, and threads for ``count`` planes."""
    taps, outputs, group = sizes[0], sizes[2], sizes[3]
    return max(1, CHUNK // (taps * outputs * group)) * group, threads.workers(tap_ns * taps * outputs * count)


def _flat(array: np.ndarray) -> np.ndarray:
    return (array if array.flags.c_contiguous else np.ascontiguousarray(array)).reshape(-1)


def maxima(x: np.ndarray, outs: list, how: tuple, dilation: tuple = ()) -> bool:
    """``outs`` = the largest of windows, and their places if there are two; whether it was done, by table.

    x (N, C, *space); how: as in ``windows_of``.
    """
    table = _maxima(x.shape[2:], outs[0].shape[2:], how, dilation, len(outs) > 1)
    if table is None:
        return False
    planes, workers = _cut(table.sizes, x.size // table.sizes[1], PEAK_NS)
    if len(outs) == 1:
        kernels.plane_peaks(_flat(x), outs[0].reshape(-1), table.places, table.sizes, planes, workers)
    else:
        y, argmax = outs[0].reshape(-1), outs[1].reshape(-1)
        kernels.plane_maxima(_flat(x), y, argmax, table.places, table.bases, table.sizes, planes, workers)
    return True


def means(x: np.ndarray, y: np.ndarray, how: tuple) -> bool:
    """y = the means of windows, see ``maxima``."""
    return _summed(kernels.plane_means, x, y, _means(x.shape[2:], y.shape[2:], how, x.dtype))


def mean_grads(dy: np.ndarray, dx: np.ndarray, how: tuple) -> bool:
    """dx = each dy shared out over its window, see ``maxima``."""
    return _summed(kernels.plane_sums, dy, dx, _mean_grads(dx.shape[2:], dy.shape[2:], how, dx.dtype))


def _summed(kernel: Any, x: np.ndarray, y: np.ndarray, found: Found) -> bool:
    if found is None:
        return False
    table, numbers = found
    planes, workers = _cut(table.sizes, x.size // table.sizes[1], TAP_NS)
    kernel(_flat(x), y.reshape(-1), table.places, numbers, table.sizes, planes, workers)
    return True
