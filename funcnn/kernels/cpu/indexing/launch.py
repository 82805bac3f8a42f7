"""How rows of a table are picked and added on the CPU: launch plans. An index that names no row is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.indexing import embedding as kernels
from funcnn.kernels.implementation import CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Cost, Launch, LaunchPlan, Output, Status, Workers

CHUNK_BYTES = 1 << 15  # bytes of output of a chunk of copied rows
COPY_NS = 0.15  # nanoseconds for a byte read and written, out of the cache
RANGE_BYTES = 1 << 18  # bytes of a table that a chunk zeroes and adds to: a part of the second-level cache
OUTSIDE = ("index out of range",)


def _fits(values: Operand, index: Operand) -> bool:
    return values.dtype.char in "fd" and index.dtype == np.int64


def _plan(kernel: Any, moved: int, sizes: tuple[int, ...], rows: int) -> LaunchPlan:
    """``kernel(values, index, out, *sizes, rows, status, workers)`` for so many moved bytes."""
    work = COPY_NS * moved
    arrays = Array(INPUT, 0), Array(INPUT, 1), Array(OUTPUT, 0)
    launch = Launch(kernel, (*arrays, *sizes, rows, Status(), Workers(work)))
    return LaunchPlan((launch,), (CONTIGUOUS,) * 2, (Output(),), refusals=OUTSIDE, cost=Cost(0, moved, work))


def _rows_plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    table, index = operands
    if not _fits(table, index):
        return None
    rows, width = table.shape
    run = max(1, CHUNK_BYTES // (width * table.itemsize + 1))
    return _plan(kernels.gather_rows, index.size * width * table.itemsize, (width, run, params["least"]), rows)


def _grad_plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan | None:
    dy, index = operands
    if not _fits(dy, index):
        return None
    rows, width = params["rows"], dy.shape[-1]
    run = max(1, RANGE_BYTES // (width * dy.itemsize + 1))
    return _plan(kernels.scatter_rows, rows * width * dy.itemsize + dy.nbytes, (width, run, -1), rows)


ROWS = (Implementation("kernel", _rows_plan),)
ROWS_GRAD = (Implementation("kernel", _grad_plan),)
