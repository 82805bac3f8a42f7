"""How average pooling runs on the CPU: means of whole images, tables of planes, windows one by one, or rows of windows in
vectors; and the gradients of these."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.machine import beyond_cache
from funcnn.kernels.cpu.pool import avg as kernels
from funcnn.kernels.cpu.pool import planes
from funcnn.kernels.cpu.pool.geometry import (
    line_length,
    phases_of,
    slack_of,
    tap_columns,
    vectors,
    window_of,
)
from funcnn.kernels.cpu.pool.launch import ELEMENT_NS, chunk_of, images_of, nothing, rows_together
from funcnn.kernels.cpu.pool.windows import is_whole, pooled_sizes, windows_of
from funcnn.kernels.cpu.vector.lanes import FEW_LANES
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Constant, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts, lines

Shape = tuple[int, int, int, int]


def _one(parts: Parts, kernel: Any, args: tuple, work: float) -> LaunchPlan:
    """Returns the plan of one launch of one input and one output."""
    return parts.plan((Launch(kernel, args),), (CONTIGUOUS,), (Output(),), cost=Cost(nanoseconds=work))


# ---- rows of windows --------------------------------------------------------------------------------------------------
@lru_cache(256)
def _table(space: tuple, out: tuple, how: tuple, dtype: np.dtype) -> tuple[Constant, Constant, int, int]:
    """Returns the table of ``avg_pool`` and the extents along W, and how many elements and rows each worker needs."""
    window, extents = window_of(*how[:3]), windows_of(space, out, how).extents
    row, block, outputs = phases_of(out[2], space[2], window, dtype.itemsize), kernels.BLOCK_ROWS, out[2]
    under = window.size[0] * window.size[1]
    used = block * window.stride[2] * row.apart + row.slack + block * outputs + row.slack + block + under
    floats, ints = lines(used + line_length(space[2], window, row), dtype.itemsize), lines(under)
    head = [*window.size, *window.stride, *window.padding, *row, floats, ints]
    across = np.ones(outputs + row.slack, dtype)
    across[:outputs] = extents[-outputs:]
    table = np.array([*head, *tap_columns(window, row), *extents], np.int64)
    return Constant(table), Constant(across), floats, ints


def rows_of_means(x: Shape, y: Shape, how: tuple, dtype: np.dtype, rows: int, past: bool, work: float) -> LaunchPlan:
    """Returns the plan of ``avg_pool`` for images x and y, ``rows`` rows a chunk; how: as in ``windows_of``."""
    parts = Parts()
    table, across, floats, ints = _table(x[1:], y[1:], how, dtype)
    args = (
        Array(INPUT, 0, x), Array(OUTPUT, 0, y), parts.constant(table), parts.constant(across), parts.each(dtype, floats),
        parts.each("int64", ints), rows, past, Workers(work),
    )  # fmt: skip
    return _one(parts, kernels.avg_pool, args, work)


@lru_cache(256)
def _bounds(space: tuple, out: tuple, how: tuple) -> tuple[Constant, Constant]:
    table = windows_of(space, out, how)
    return Constant(table.bounds[0]), Constant(table.extents.astype(np.int64))


def windows_of_means(x: Shape, y: Shape, how: tuple, dtype: np.dtype, rows: int, work: float) -> LaunchPlan:
    """Returns the plan of ``window_mean``."""
    parts, each = Parts(), lines(x[3], dtype.itemsize)
    bounds, extents = _bounds(x[1:], y[1:], how)
    args = (
        Array(INPUT, 0, x), Array(OUTPUT, 0, y), parts.constant(bounds, bounds.array.shape), parts.constant(extents),
        parts.each(dtype, each), each, rows, Workers(work),
    )  # fmt: skip
    return _one(parts, kernels.window_mean, args, work)


def _whole(x: Operand) -> LaunchPlan:
    """Returns the mean of each image."""
    images = prod(x.shape[:2])
    n, work = x.size // images, ELEMENT_NS * x.size
    args = (Array(INPUT, 0, (images, n)), Array(OUTPUT, 0, (images,)), chunk_of(n), Workers(work))
    return _one(Parts(), kernels.mean_rows, args, work)


# ---- the gradient -----------------------------------------------------------------------------------------------------
def _column_offsets(size: int, stride: int, padding: int, margin: int) -> tuple[list[int], int]:
    """Returns where the columns over pixel w = stride * u lie from u on, in the row of sums with its margin; then those over
    stride * u + 1; and how many are the first."""
    over = [
        [margin + (e + padding - j) // stride for j in range(size) if (e + padding - j) % stride == 0]
        for e in range(stride)
    ]
    offsets = [offset for own in over for offset in own]
    return offsets + [0] * (2 * size - len(offsets)), len(over[0]) if over else 0


@lru_cache(256)
def _grad_table(space: tuple, out: tuple, how: tuple, steps: tuple, dtype: np.dtype) -> tuple:
    """Returns what ``avg_pool_grad`` reads: its table, shares, columns and weights; and how much each worker needs."""
    size, stride, padding = steps
    windows, slack, block = windows_of(space, out, how), slack_of(dtype.itemsize), kernels.BLOCK_ROWS
    margin = vectors(size, dtype.itemsize)
    apart = margin + vectors(max(out[2], space[2] + padding), dtype.itemsize) + 2 * slack
    columns, weights, taps, pitch = planes.columns(space, out, how, dtype)
    covers = windows.covers
    deep, high = (np.split(covers, [space[0], space[0] + space[1]])[axis] for axis in (0, 1))
    most = max(1, int((deep[:, 1] - deep[:, 0]).max() * (high[:, 1] - high[:, 0]).max()))
    used = block * apart + slack + block * space[2] + 2 * slack
    floats, ints = lines(used + most, dtype.itemsize), lines(most + block)
    offsets, evens = _column_offsets(size, stride, padding, margin)
    head = [size, stride, padding, margin, apart, evens, slack, floats, ints, most, taps, pitch]
    table = np.array([*head, *offsets, *covers.reshape(-1)], np.int64)
    shares = np.ones(sum(out) + slack, dtype)
    shares[: sum(out)] = 1 / windows.extents
    return Constant(table), Constant(shares), columns, weights, floats, ints


def rows_of_grads(
    dy: Shape, dx: Shape, how: tuple, steps: tuple, dtype: np.dtype, rows: int, past: bool, work: float
) -> LaunchPlan:
    """Returns the plan of ``avg_pool_grad``. steps: size, stride and padding along W, as the kernel takes them."""
    parts = Parts()
    table, shares, columns, weights, floats, ints = _grad_table(dx[1:], dy[1:], how, steps, dtype)
    args = (
        Array(INPUT, 0, dy), Array(OUTPUT, 0, dx), *map(parts.constant, (table, shares, columns, weights)),
        parts.each(dtype, floats), parts.each("int64", ints), rows, past, Workers(work),
    )  # fmt: skip
    return _one(parts, kernels.avg_pool_grad, args, work)


def _mean_grad_whole(dy: Operand, space: tuple) -> LaunchPlan:
    """Returns the gradient of the mean of each image."""
    images, n = dy.size, prod(space)
    work = 2 * ELEMENT_NS * images * n
    args = (Array(INPUT, 0, (images,)), Array(OUTPUT, 0, (images, n)), chunk_of(n), Workers(work))
    return _one(Parts(), kernels.mean_rows_grad, args, work)


# ---- of primitives ----------------------------------------------------------------------------------------------------
class _Call:
    """What an application of average pooling is about: images, outputs, and how windows lie (``windows_of``)."""

    def __init__(self, x: Operand, params: dict[str, Any], space: tuple | None = None):
        self.space = x.shape[2:] if space is None else space
        if "size" in params:
            names = ("size", "stride", "padding", "include", "divisor")
            self.how = tuple(params[name] for name in names)
            size, stride, padding = self.how[:3]
            self.out = pooled_sizes(self.space, size, stride, padding, (1,) * len(size), params["ceil_mode"])
        else:
            self.how, self.out = (), params["out"]
        self.lead, self.dtype = x.shape[:2], x.dtype
        self.x, self.y = images_of((*self.lead, *self.space)), images_of((*self.lead, *self.out))
        self.whole = is_whole(self.space, self.out, self.how)
        self.moved = x.itemsize * (prod(self.x) + prod(self.y))


def _mean_whole(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    call = _Call(operands[0], params)
    return _whole(operands[0]) if call.whole and 0 not in call.y else None


def _mean_planes(forced: bool, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    call = _Call(operands[0], params)
    return planes.means(operands[0], call.out, call.how, forced) if prod(call.y) else None


def _mean_windows(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    call = _Call(operands[0], params)
    x, y = call.x, call.y
    if not prod(y):
        return nothing(1)
    rows = chunk_of(prod(x) // max(prod(y[:3]), 1))
    return windows_of_means(x, y, call.how, call.dtype, rows, ELEMENT_NS * prod(x))


def _mean_rows(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    call = _Call(operands[0], params)
    x, y = call.x, call.y
    if not prod(y):
        return nothing(1)
    taps = prod(params["size"])
    rows, work = rows_together(prod(y[:3]), y[3] * taps), ELEMENT_NS * taps * prod(y)
    how = (*window_of(*call.how[:3])[:3], *call.how[3:])
    return rows_of_means(x, y, how, call.dtype, rows, beyond_cache(call.moved), work)


def _narrow(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    return _Call(operands[0], params).y[3] < FEW_LANES


WHOLE = Implementation("whole", _mean_whole)
PLANES = Implementation(
    "planes",
    lambda operands, params: _mean_planes(True, operands, params),
    lambda operands, params: _mean_planes(False, operands, params) is not None,
)
adaptive_avg_pools = (WHOLE, PLANES, Implementation("windows", _mean_windows))
avg_pools = (WHOLE, PLANES, Implementation("windows", _mean_windows, _narrow), Implementation("rows", _mean_rows))


def _grad_whole(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    call = _Call(operands[0], params, params["space"])
    return _mean_grad_whole(operands[0], call.space) if call.whole and 0 not in (*call.x, *call.y) else None


def _grad_planes(forced: bool, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    call = _Call(operands[0], params, params["space"])
    return planes.mean_grads(operands[0], call.space, call.how, forced) if prod(call.x) else None


def _grad_rows(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    call = _Call(operands[0], params, params["space"])
    dx, dy, steps = call.x, call.y, (1, 0, 0)
    if not prod(dx):
        return nothing(1)
    how = call.how
    if how:
        how = (*window_of(*how[:3])[:3], *how[3:])
        size, stride, padding = (part[2] for part in how[:3])
        steps = size, stride if stride == 1 or (stride == 2 and size > 1) else 0, padding
    rows = rows_together(prod(dx[:3]), 3 * dx[3])
    past = beyond_cache(call.moved)
    return rows_of_grads(dy, dx, how, steps, call.dtype, rows, past, 2 * ELEMENT_NS * prod(dx))


avg_pool_grads = (
    Implementation("whole", _grad_whole),
    Implementation(
        "planes",
        lambda operands, params: _grad_planes(True, operands, params),
        lambda operands, params: _grad_planes(False, operands, params) is not None,
    ),
    Implementation("rows", _grad_rows),
)
