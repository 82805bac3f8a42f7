"""How axes of images are resampled on the CPU: a launch for height and width, and one more for depth."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from funcnn.kernels.cpu.sampling import interpolate as kernels
from funcnn.kernels.cpu.sampling.axes import Axis, rows_of, table
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Constant, Cost, Launch, LaunchPlan, Output, Workers
from funcnn.kernels.plan_parts import Parts, lines

TAP_NS, SCATTERED_NS = 0.1, 0.5  # of a weighted addition: of neighbours, of elements anywhere
ROW_NS, READ_NS = 10.0, 0.15  # of a row of outputs beside its elements; of an input element
CHUNK_BYTES = 1 << 17  # of input and output of a chunk


def resized(axes: tuple[Axis, ...], transpose: bool) -> tuple[int, ...]:
    """Returns the sizes of what comes out."""
    return tuple(axis.n if transpose else axis.m for axis in axes)


class Pass(NamedTuple):
    """The arguments of the kernel for one pass over planes, and what the number of planes decides."""

    rows: tuple[tuple[Constant, ...], int]  # numbers, places, slots and weights; taps
    columns: tuple[tuple[Constant, ...], int, int]  # index and weight; taps and pitch
    sizes: tuple[int, int, int, int]
    plan: tuple[int, int, int]
    room: int  # elements of scratch that a worker needs
    work: float  # nanoseconds a plane


@lru_cache(maxsize=256)
def _pass(height: tuple | None, width: tuple | None, dtype: np.dtype, sizes: tuple) -> Pass:
    """Plans the resampling of (H, W) to (P, Q), each axis by the arguments of its ``table``; None leaves it alone."""
    h, w, p, q = sizes
    tall, wide = (None if how is None else table(*how) for how in (height, width))
    ring = min(tall.span, h) if tall and wide and p >= h else 0
    if tall and wide and tall.taps == 1 and (tall.source >= 0).all() and (tall.weight == 1).all():
        ring = -1
    none, nothing = np.zeros(0, np.int64), np.zeros(0, dtype)
    *listed, taps = rows_of(*height, q if ring > 0 else w, max(ring, 0)) if height else (none, none, none, nothing, 0)
    *across, many, pitch = wide.columns if wide else (none.astype(np.int32), nothing, 0, 0)
    size = dtype.itemsize * (h * w + p * q)
    planes, block = max(1, CHUNK_BYTES // size), max(1, min(p, CHUNK_BYTES * p // size))
    room = 0 if ring < 0 or not (height and width) else ring * q or w
    work = ROW_NS * p + min(h, p) * (READ_NS * w + SCATTERED_NS * many * q) + TAP_NS * taps * p * q
    cut = (ring, planes, p if planes > 1 else block)
    rows, columns = tuple(map(Constant, listed)), tuple(map(Constant, across))
    return Pass((rows, taps), (columns, many, pitch), sizes, cut, room, work)


def _launch(parts: Parts, x: Array, y: Array, planes: int, how: Pass, dtype: np.dtype) -> tuple[Launch, float]:
    """Resamples planes of flat x to flat y; returns the launch, and its nanoseconds."""
    (rows, row_taps), (columns, taps, pitch) = how.rows, how.columns
    each, marks = (lines(many, 4) if many > 0 else 1 for many in (how.room, how.plan[0]))
    work = how.work * planes
    args = (
        x, y, *map(parts.constant, rows), row_taps, *map(parts.constant, columns), taps, pitch, how.sizes,
        parts.each(dtype, each), parts.each("int64", marks), (*how.plan, each, marks), Workers(work),
    )  # fmt: skip
    return Launch(kernels.resize, args), work


def _plan(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x, axes, transpose = operands[0], params["axes"], params["transpose"]
    dtype, m, parts, space = x.dtype, prod(x.shape[:2]), Parts(), resized(axes, transpose)
    if not m * prod(space):
        return LaunchPlan((), (ANY,), (Output(),))
    *deep, height, width = [None] * (2 - len(axes)) + [(axis, dtype, transpose) for axis in axes]
    (d, h, w), (o, p, q) = ((1,) * (3 - len(axes)) + tuple(sizes) for sizes in (x.shape[2:], space))
    first, last = Array(INPUT, 0), Array(OUTPUT, 0)
    if not deep:
        steps = [_launch(parts, first, last, m, _pass(height, width, dtype, (h, w, p, q)), dtype)]
    elif o >= d:
        middle = parts.room(dtype, m * d * p * q)
        steps = [
            _launch(parts, first, middle, m * d, _pass(height, width, dtype, (h, w, p, q)), dtype),
            _launch(parts, middle, last, m, _pass(deep[0], None, dtype, (d, p * q, o, p * q)), dtype),
        ]
    else:
        middle = parts.room(dtype, m * o * h * w)
        steps = [
            _launch(parts, first, middle, m, _pass(deep[0], None, dtype, (d, h * w, o, h * w)), dtype),
            _launch(parts, middle, last, m * o, _pass(height, width, dtype, (h, w, p, q)), dtype),
        ]
    launches, works = zip(*steps, strict=True)
    cost = Cost(nanoseconds=sum(works))
    return parts.plan(launches, (CONTIGUOUS,), (Output(),), cost=cost)


resizes = (Implementation("kernel", _plan),)
