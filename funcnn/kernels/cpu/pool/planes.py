"""When pooling goes by tables of whole planes (``kernels.cpu.pool.plane``) instead of by rows, and the tables it takes.

Of both ways the cheaper one by a model is taken: nanoseconds for a row of outputs, measured on one core. A table costs a load
for each tap; rows cost a fixed amount, then little for each element, as long as windows are a step of 1 or 2 apart.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.pool import plane as kernels
from funcnn.kernels.cpu.pool.windows import is_whole, three, windows_of
from funcnn.kernels.cpu.vector.table_taps import ABSENT
from funcnn.kernels.cpu.vector.tap_tables import PlaneTable, listed, padded, plane_table, table_bytes, widths
from funcnn.kernels.implementation import CONTIGUOUS, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Constant, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts

TAP_NS, PEAK_NS = 0.35, 0.36  # of a tap by table: added, compared
MOST_TABLE_BYTES = 1 << 16  # of a table: it stays in the second-level cache
CHUNK_TAPS = 1 << 13  # some 4 us


class Rows(NamedTuple):
    """What a row of outputs costs by the kernels of rows."""

    fixed: float
    number: float  # of an input row under the windows
    split: float  # of an element that is split by phase, for steps above 2; twice as much above 4
    vector: float  # of a tap of 32 windows
    alone: float = 0.0  # of a tap along the row of a single window
    lines: bool = False  # whether each input row is split and handled alone, not the sum or maximum of all


MEANS, PEAKS, MAXIMA = Rows(28, 0.06, 0.2, 0.5), Rows(28, 0.06, 0.2, 0.5), Rows(35, 0.1, 0.3, 1.6, lines=True)
ANY_MEANS, ANY_MAXIMA = Rows(30, 0.1, 0, 0, 0.45), Rows(30, 0, 0, 0, 2.5, True)  # windows of any bounds
GRADS, ANY_GRADS = Rows(20, 0.1, 0, 0.5), Rows(20, 0.1, 0, 0, 0.35)


def row_ns(rows: Rows, width: int, outputs: int, size: tuple, step: int) -> float:
    """Returns nanoseconds of a row of outputs whose windows have this size in an image of this width."""
    lines, each = size[0] * size[1], size[0] * size[1] if rows.lines else 1
    split = rows.split * each * width * (0 if step <= 2 else 1 if step <= 4 else 2)
    taps = rows.vector * lines * size[2] * -(-outputs // 32) + rows.alone * each * size[2] * outputs
    return rows.fixed + rows.number * lines * width + split + taps


def _split(table: np.ndarray, sizes: tuple) -> list[np.ndarray]:
    """Ranges along the axes out of those one after another."""
    return np.split(table, np.cumsum(sizes)[:-1])


def _extent(ranges: list[np.ndarray]) -> tuple:
    return tuple(int((span[:, 1] - span[:, 0]).max(initial=1)) for span in ranges)


def _small(ranges: list[np.ndarray]) -> bool:
    """Whether a table of these ranges is."""
    size, (depth, height, outputs) = _extent(ranges), (len(span) for span in ranges)
    return table_bytes(size[0] * size[1] * size[2], depth * height * outputs) <= MOST_TABLE_BYTES


def _cheaper(ranges: list[np.ndarray], tap_ns: float, rows: Rows, width: int, step: int) -> bool:
    """Whether a table of these ranges is cheaper than rows."""
    size, outputs = _extent(ranges), len(ranges[-1])
    return tap_ns * size[0] * size[1] * size[2] * outputs <= row_ns(rows, width, outputs, size, step)


Found = tuple[PlaneTable, Constant] | None


def _ways(rows: Rows, any_rows: Rows, how: tuple) -> tuple[Rows, int]:
    """Returns what rows of such windows cost, and how far apart they are in a row."""
    return (rows, how[1][-1]) if how else (any_rows, 1)


def _pieces(space: tuple, out: tuple, how: tuple, least: int) -> tuple[tuple, tuple]:
    """Returns the sizes of a plane and its outputs, where a line of windows beside one another, ``least`` or more apart, is as many
    planes as it has windows, so that its table is short however long it is."""
    if len(space) > 1 or not how:
        return space, out
    (size,), (step,), (padding,) = how[:3]
    return ((step,), (1,)) if size <= step >= least and padding == 0 and space[0] == out[0] * step else (space, out)


@lru_cache(maxsize=256)
def _maxima(space: tuple, out: tuple, how: tuple, dilation: tuple, places: bool, forced: bool) -> PlaneTable | None:
    rows, step = _ways(MAXIMA if places else PEAKS, ANY_MAXIMA, how)
    if not places and max(dilation, default=1) == 1:
        space, out = _pieces(space, out, how, 5)
    if how:  # as they are, over the edges
        size, stride, padding = (three(value, fill) for value, fill in zip(how, (1, 1, 0), strict=False))
        starts = [np.arange(o) * t - p for o, t, p in zip(three(out, 1), stride, padding, strict=True)]
        ranges = [np.stack([start, start + k], 1) for start, k in zip(starts, size, strict=True)]
    else:
        ranges = _split(windows_of(space, out, how).bounds[0], three(out, 1))
    if not _small(ranges) or not (forced or _cheaper(ranges, PEAK_NS, rows, space[-1], step)):
        return None
    found = listed(ranges, three(space, 1), three(dilation, 1))
    if (found < 0).all(0).any():  # a window of nothing but padding
        return None
    return plane_table(found, prod(space), True)


@lru_cache(maxsize=256)
def _means(space: tuple, out: tuple, how: tuple, dtype: np.dtype, forced: bool) -> Found:
    (rows, step), windows = _ways(MEANS, ANY_MEANS, how), windows_of(space, out, how)
    ranges = _split(windows.bounds[0], three(out, 1))
    if is_whole(space, out, how) or not _small(ranges):  # the mean of all is a sum of a row
        return None
    if not (forced or _cheaper(ranges, TAP_NS, rows, space[-1], step)):
        return None
    table = plane_table(listed(ranges, three(space, 1)), prod(space), False)
    return table, Constant(table.each(_divisors(windows.extents, out).astype(dtype)))


@lru_cache(maxsize=256)
def _mean_grads(space: tuple, out: tuple, how: tuple, dtype: np.dtype, forced: bool) -> Found:
    if is_whole(space, out, how):
        return None
    space, out = _pieces(space, out, how, 3)
    known = how and (how[1][-1] == 1 or (how[1][-1] == 2 and how[0][-1] > 1))
    windows, rows = windows_of(space, out, how), GRADS if known else ANY_GRADS
    ranges = _split(windows.covers, three(space, 1))
    if not _small(ranges) or not (forced or _cheaper(ranges, TAP_NS, rows, out[-1], 1)):
        return None
    places = listed(ranges, three(out, 1))
    table = plane_table(places, prod(out), False)
    return table, Constant(table.each(_shares(_divisors(windows.extents, out), places, dtype)))


@lru_cache(maxsize=256)
def columns(space: tuple, out: tuple, how: tuple, dtype: np.dtype) -> tuple[Constant, Constant, int, int]:
    """Returns the windows over each column, and the share of each in it, as ``kernels.cpu.pool.avg`` takes them."""
    windows = windows_of(space, out, how)
    places = listed([windows.covers[-space[-1] :]], (out[-1],))
    shares = _shares(windows.extents[-out[-1] :], places, dtype)
    return Constant(padded(np.where(places < 0, ABSENT, places))), Constant(padded(shares)), *widths(places)


def _shares(divisors: np.ndarray, places: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.where(places < 0, 0, 1 / divisors[places]).astype(dtype)


def _divisors(extents: np.ndarray, out: tuple) -> np.ndarray:
    """Returns what each output is divided by, in order."""
    deep, high, wide = _split(extents, three(out, 1))
    return (deep[:, None, None] * high[:, None] * wide).reshape(-1)


# ---- plans ------------------------------------------------------------------------------------------------------------
def _plan(kernel: Any, x: Operand, table: PlaneTable, tap_ns: float, outs: int, *numbers: Constant) -> LaunchPlan:
    """Returns the plan of a kernel of planes with ``outs`` outputs, whose table is followed by other constants."""
    taps, pixels, outputs, group = table.sizes[:4]
    count = x.size // pixels
    planes = max(1, CHUNK_TAPS // (taps * outputs * group)) * group
    work = tap_ns * taps * outputs * count
    parts = Parts()
    tables = [parts.constant(table.indices), *map(parts.constant, numbers)]
    results = [Array(OUTPUT, i) for i in range(outs)]
    args = (Array(INPUT, 0), *results, *tables, table.sizes, planes, Workers(work))
    cost = Cost(nanoseconds=work)
    return parts.plan((Launch(kernel, args),), (CONTIGUOUS,), (Output(),) * outs, cost=cost)


def maxima(x: Operand, out: tuple, how: tuple, dilation: tuple, places: bool, forced: bool) -> LaunchPlan | None:
    """Returns the plan of the largest of windows, and their places if those are wanted; None: not by table.

    x (N, C, *space); out: the outputs of a plane; how: as in ``windows_of``; forced: whether it shall be, although it costs
    more than rows.
    """
    table = _maxima(x.shape[2:], out, how, dilation, places, forced)
    if table is None:
        return None
    if places:
        return _plan(kernels.plane_maxima, x, table, PEAK_NS, 2, table.corners)
    return _plan(kernels.plane_peaks, x, table, PEAK_NS, 1)


def means(x: Operand, out: tuple, how: tuple, forced: bool) -> LaunchPlan | None:
    """Returns the plan of the means of windows, see ``maxima``."""
    found = _means(x.shape[2:], out, how, x.dtype, forced)
    return None if found is None else _plan(kernels.plane_means, x, found[0], TAP_NS, 1, found[1])


def mean_grads(dy: Operand, space: tuple, how: tuple, forced: bool) -> LaunchPlan | None:
    """Returns the plan of each dy shared out over its window, see ``maxima``."""
    found = _mean_grads(space, dy.shape[2:], how, dy.dtype, forced)
    return None if found is None else _plan(kernels.plane_sums, dy, found[0], TAP_NS, 1, found[1])
