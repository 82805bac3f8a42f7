"""How pooling by maximum runs on the CPU: tables of planes, windows one by one, or rows of windows in vectors."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.machine import beyond_cache
from funcnn.kernels.cpu.pool import fractional, integers, planes
from funcnn.kernels.cpu.pool import max as kernels
from funcnn.kernels.cpu.pool import max_values as value_kernels
from funcnn.kernels.cpu.pool.geometry import Window, line_length, phases_of, tap_columns, window_of
from funcnn.kernels.cpu.pool.launch import (
    ELEMENT_NS,
    SCALAR_NS,
    WINDOW_NS,
    chunk_of,
    images_of,
    nothing,
    rows_together,
)
from funcnn.kernels.cpu.pool.windows import adaptive_windows, pooled_sizes, windows
from funcnn.kernels.cpu.vector.lanes import FEW_LANES, LANES
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand, host
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Constant, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts, lines

Shape = tuple[int, int, int, int]


def index_dtype(space: tuple) -> Any:
    """Returns the dtype of the flat indices that pooling notes for its gradient: half the memory where it suffices."""
    return np.dtype(np.int32 if prod(space) < 1 << 31 else np.int64)


# ---- rows of windows --------------------------------------------------------------------------------------------------
@lru_cache(256)
def _first_columns(outputs: int, width: int, window: Window, slack: int, dtype: np.dtype) -> Constant:
    """Returns the first column of each window of a row that is inside the image, -1 where none is; and -1 as often again."""
    size, step, padding, dilation = (part[2] for part in window)
    starts = np.arange(outputs) * step - padding
    first = np.where(starts < 0, starts + (dilation - 1 - starts) // dilation * dilation, starts)
    inside = (first < width) & (first <= starts + (size - 1) * dilation)
    table = np.full(2 * (outputs + slack), -1, dtype)
    table[:outputs] = np.where(inside, first, -1)
    return Constant(table)


@lru_cache(256)
def _tap_table(space: tuple, outputs: int, window: Window, itemsize: int) -> tuple[Constant, int, int]:
    """Returns the table of ``max_pool``, and how many values and places each worker needs."""
    size, stride, _, dilation = window
    (_, height, width), row, block = space, phases_of(outputs, space[2], window, itemsize), kernels.BLOCK_ROWS
    slots = (block - 1) * stride[1] + (size[1] - 1) * dilation[1] + 1
    used = size[0] * slots * stride[2] * row.apart + row.slack
    held = block * outputs + row.slack
    floats, places = lines(used + held + line_length(width, window, row) + 1, itemsize), lines(held)
    columns, apart = tap_columns(window, row), stride[2] * row.apart
    taps = [(a, i, j) for a in range(size[0]) for i in range(size[1]) for j in range(size[2])]
    offsets = [(a * slots + i * dilation[1]) * apart + columns[j] for a, i, j in taps]
    marks = [
        (a * dilation[0] * height + i * dilation[1]) * width + j * dilation[2] - window.padding[2] for a, i, j in taps
    ]
    head = [*sum(window, ()), row.margin, row.apart, slots, row.slack, floats, places]
    return Constant(np.array([*head, *offsets, *marks, 0], np.int64)), floats, places


def rows_with_places(
    x: Shape, y: Shape, window: Window, dtype: np.dtype, index: np.dtype, rows: int, past: bool, work: float
) -> LaunchPlan:
    """Returns the plan of ``max_pool`` for images x and y, ``rows`` rows a chunk."""
    parts, size = Parts(), dtype.itemsize
    table, floats, places = _tap_table(x[1:], y[3], window, size)
    firsts = _first_columns(y[3], x[3], window, phases_of(y[3], x[3], window, size).slack, index)
    args = (
        Array(INPUT, 0, x), Array(OUTPUT, 0, y), Array(OUTPUT, 1, y), parts.constant(table), parts.constant(firsts),
        parts.each(dtype, floats), parts.each(index, places), rows, past, Workers(work),
    )  # fmt: skip
    cost = Cost(nanoseconds=work)
    return parts.plan((Launch(kernels.max_pool, args),), (CONTIGUOUS,), (Output(), Output()), cost=cost)


@lru_cache(256)
def _value_table(space: tuple, outputs: int, window: Window, itemsize: int) -> tuple[Constant, int, int]:
    """Returns the table of ``max_values``, and how many elements and places each worker needs."""
    row, block = phases_of(outputs, space[2], window, itemsize), value_kernels.BLOCK_ROWS
    used = block * window.stride[2] * row.apart + row.slack + block * outputs + row.slack
    floats, ints = lines(used + line_length(space[2], window, row), itemsize), lines(window.size[0] * window.size[1])
    head = [*sum(window, ()), *row, floats, ints]
    return Constant(np.array([*head, *tap_columns(window, row)], np.int64)), floats, ints


def rows_of_values(
    x: Shape, y: Shape, window: Window, dtype: np.dtype, rows: int, past: bool, work: float
) -> LaunchPlan:
    """Returns the plan of ``max_values``."""
    parts = Parts()
    table, floats, ints = _value_table(x[1:], y[3], window, dtype.itemsize)
    args = (
        Array(INPUT, 0, x), Array(OUTPUT, 0, y), parts.constant(table), parts.each(dtype, floats),
        parts.each("int64", ints), rows, past, Workers(work),
    )  # fmt: skip
    cost = Cost(nanoseconds=work)
    return parts.plan((Launch(value_kernels.max_values, args),), (CONTIGUOUS,), (Output(),), cost=cost)


def _rows(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    if operands[0].dtype.kind != "f":
        return None
    x, y, window = *_images(operands[0], params), _window(params)
    if not prod(y):
        return nothing(1 + params["indices"])
    dtype, taps = operands[0].dtype, prod(window.size)
    rows, held = rows_together(prod(y[:3]), y[3] * taps), dtype.itemsize * (prod(x) + prod(y))
    if params["indices"]:
        index = index_dtype(x[1:])
        past = beyond_cache(held + index.itemsize * prod(y))
        return rows_with_places(x, y, window, dtype, index, rows, past, ELEMENT_NS * taps * prod(y))
    work = ELEMENT_NS / 2 * max(taps * prod(y), prod(x))
    return rows_of_values(x, y, window, dtype, rows, beyond_cache(held), work)


# ---- windows of any bounds --------------------------------------------------------------------------------------------
def windows_plan(
    x: Shape, y: Shape, dtype: np.dtype, bounds: Constant, taps: int, rows: int, work: float, noted: bool = True
) -> LaunchPlan:
    """Returns the plan of ``window_max`` over windows of about ``taps`` pixels; noted: whether their places are an output."""
    parts = Parts()
    table = parts.constant(bounds, bounds.array.shape)
    launch, cost = _window_launch(x, y, dtype, parts, table, taps, rows, work, noted)
    return parts.plan((launch,), (CONTIGUOUS,), (Output(),) * (1 + noted), cost=cost)


def _window_launch(
    x: Shape, y: Shape, dtype: np.dtype, parts: Parts, bounds: Array, taps: int, rows: int, work: float, noted: bool
) -> tuple[Launch, Cost]:
    each, index = lines(kernels.pieces_most(x)), index_dtype(x[1:])
    argmax = Array(OUTPUT, 1, y) if noted else parts.room(index, 1, (1, 1, 1, 1))
    args = (
        Array(INPUT, 0, x), Array(OUTPUT, 0, y), argmax, noted, bounds, parts.each(dtype, 2 * LANES),
        parts.each("int64", each), each, rows, Workers(work),
    )  # fmt: skip
    return Launch(kernels.window_max, args), Cost(nanoseconds=work)


@lru_cache(256)
def _bounds(space: tuple, out: tuple, window: tuple) -> Constant:
    table = windows(space, out, *window, True, 0) if window else adaptive_windows(space, out)
    return Constant(table.bounds)


def _by_windows(x: Shape, y: Shape, dtype: np.dtype, bounds: Constant, taps: int, noted: bool) -> LaunchPlan:
    work = (SCALAR_NS * taps + WINDOW_NS) * prod(y)
    return windows_plan(x, y, dtype, bounds, taps, chunk_of(y[3] * taps), work, noted)


def _windows(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    if operands[0].dtype.kind != "f":
        return None
    x, y, window = *_images(operands[0], params), _window(params)
    if window.dilation != (1, 1, 1) or not params["indices"]:
        return None
    if not prod(y):
        return nothing(2)
    return _by_windows(x, y, operands[0].dtype, _bounds(x[1:], y[1:], window[:3]), prod(window.size), True)


# ---- of primitives ----------------------------------------------------------------------------------------------------
def _window(params: dict[str, Any]) -> Window:
    return window_of(params["size"], params["stride"], params["padding"], params["dilation"])


def _out(x: Operand, params: dict[str, Any]) -> tuple[int, ...]:
    names = ("size", "stride", "padding", "dilation", "ceil_mode")
    return pooled_sizes(x.shape[2:], *(params[name] for name in names))


def _images(x: Operand, params: dict[str, Any]) -> tuple[Shape, Shape]:
    return images_of(x.shape), images_of((*x.shape[:2], *_out(x, params)))


def _planes(forced: bool, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, out = operands[0], _out(operands[0], params)
    if x.dtype.kind != "f" or not x.size * prod(out):
        return None
    how = params["size"], params["stride"], params["padding"]
    return planes.maxima(x, out, how, params["dilation"], params["indices"], forced)


def _narrow(operands: tuple[Operand, ...], params: dict[str, Any]) -> bool:
    return _out(operands[0], params)[-1] < FEW_LANES


max_pools = (
    host("integers", integers.max_pool, "integers have no kernel yet: NumPy compares one tap of all windows at a time", lambda ins, **window: ins[0].dtype.kind != "f"),
    Implementation(
        "planes",
        lambda operands, params: _planes(True, operands, params),
        lambda operands, params: _planes(False, operands, params) is not None,
    ),
    Implementation("windows", _windows, _narrow),
    Implementation("rows", _rows),
)  # fmt: skip


def _adaptive_planes(forced: bool, operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    x, out = operands[0], params["out"]
    return planes.maxima(x, out, (), (), params["indices"], forced) if x.size * prod(out) else None


def _adaptive(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    shape = operands[0].shape
    x, y = images_of(shape), images_of((*shape[:2], *params["out"]))
    noted, bounds = params["indices"], _bounds(x[1:], y[1:], ())
    if not prod(y):
        return nothing(1 + noted)
    return _by_windows(x, y, operands[0].dtype, bounds, -(-prod(x) // prod(y)), noted)


adaptive_max_pools = (
    Implementation(
        "planes",
        lambda operands, params: _adaptive_planes(True, operands, params),
        lambda operands, params: _adaptive_planes(False, operands, params) is not None,
    ),
    Implementation("windows", _adaptive),
)  # fmt: skip


# ---- windows at random places -----------------------------------------------------------------------------------------
def _fractional(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    image, size, out, noted = operands[0], params["size"], params["out"], params["indices"]
    x, y = images_of(image.shape), images_of((*image.shape[:2], *out))
    if not prod(y):
        return nothing(1 + noted, 2)
    parts, taps, many = Parts(), prod(size), sum(y[1:])
    bounds = parts.room("int64", x[0] * many * 2, (x[0], many, 2))
    sizes = (len(size), *x[1:], *y[1:], *window_of(size, (1,), (0,)).size)
    drawn = Launch(fractional.window_bounds, (Array(INPUT, 1), bounds, sizes))
    work = (SCALAR_NS * taps + WINDOW_NS) * prod(y)
    launch, cost = _window_launch(x, y, image.dtype, parts, bounds, taps, chunk_of(y[3] * taps), work, noted)
    return parts.plan((drawn, launch), (CONTIGUOUS, CONTIGUOUS), (Output(),) * (1 + noted), cost=cost)


fractional_max_pools = (Implementation("kernel", _fractional),)
