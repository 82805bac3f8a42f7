"""When convolution with kernels of one tap applies on the CPU, and how its work is cut."""

from __future__ import annotations

from math import prod

import numpy as np

from funcnn.kernels.cpu.conv.launch.draft import FIRST, FLOP_NS, RESULT, SECOND, Draft
from funcnn.kernels.cpu.conv.launch.gather import COPY_NS, packed_weights
from funcnn.kernels.cpu.conv.launch.problem import Problem
from funcnn.kernels.cpu.conv.pointwise import pointwise, put_pixels, take_pixels
from funcnn.kernels.cpu.conv.pointwise_weight import pointwise_weight_grad
from funcnn.kernels.cpu.conv.tables import repeated
from funcnn.kernels.cpu.machine import beyond_cache, tile_shape
from funcnn.kernels.cpu.vector.tiles import strided_shape
from funcnn.kernels.launch import Array, LaunchPlan, Workers

BLOCK_BYTES = 96 << 10  # of a block of pixels: this one, the next and weights fit the second-level cache
PIECE_ELEMENTS = 1 << 16  # of a piece that is transposed
LEAST_CHUNKS = 32  # at least, where there is work for them: eight or sixteen threads get equal shares


def _one_tap(p: Problem) -> bool:
    """Whether all taps are one, without padding, and there is something to multiply."""
    return p.taps == 1 and not any(p.padding) and not p.empty


def _taken(draft: Draft) -> Array:
    """Returns the pixels of x that strides take."""
    p = draft.problem
    if max(p.stride) == 1:
        return FIRST
    planes, size = p.x[0] * p.x[1], p.x[0] * p.x[1] * prod(p.y[2:])
    taken = draft.room(size)
    draft.run(take_pixels, FIRST, taken, planes, p.x[2:], p.y[2:], p.stride, Workers(COPY_NS * size))
    return taken


def _multiply(draft: Draft, x: Array, y: Array, count: int, lanes: int, table: np.ndarray, steps: tuple) -> None:
    """Writes y = bias + weights x, where the table has places of w for the ``count`` channels of x, and steps are its lanes' and
    groups'."""
    p, groups = draft.problem, draft.problem.groups
    rows, columns = tile = tile_shape(p.itemsize)
    batch, pixels = p.x[0], prod(p.y[2:])
    packed, *_ = packed_weights(draft, table, np.array([0, count]), groups, lanes, rows, steps)
    wide = columns * max(1, min(8, BLOCK_BYTES // (count * columns * p.itemsize)))
    blocks, panels = -(-batch * pixels // wide), -(-lanes // rows)
    each = max(1, blocks * groups // LEAST_CHUNKS)
    chunks = -(-blocks // each)
    deep = -(-panels // max(1, min(panels, 16 // (chunks * groups))))
    scratch = draft.room((count + rows) * wide, each_worker=True)
    places = draft.room(6 * wide, "int64", each_worker=True)
    size = batch * groups * lanes * pixels
    past = beyond_cache(batch * groups * (count + lanes) * pixels * p.itemsize)
    draft.run(
        pointwise, x, packed, draft.bias(groups * lanes), y, scratch, places, tile, (count, lanes, pixels, batch, groups),
        (wide, each, chunks, -(-panels // deep), deep), past, Workers(2 * FLOP_NS * size * count),
    )  # fmt: skip


def forward(p: Problem) -> LaunchPlan | None:
    """Computes y = w x + bias."""
    if not _one_tap(p):
        return None
    draft = Draft(p)
    steps = (p.inner, p.lanes * p.inner)
    _multiply(draft, _taken(draft), RESULT, p.inner, p.lanes, repeated(1, p.inner, 1), steps)
    return draft.plan()


def input_grad(p: Problem) -> LaunchPlan | None:
    """Computes dx = w' dy; pixels that strides leave out have no gradient."""
    if not _one_tap(p):
        return None
    draft, steps = Draft(p), (1, p.lanes * p.inner)
    if max(p.stride) == 1:
        _multiply(draft, FIRST, RESULT, p.lanes, p.inner, repeated(p.inner, p.lanes, 1), steps)
        return draft.plan()
    planes, channels = p.x[0] * p.x[1], p.x[1]
    taken = draft.room(planes * prod(p.y[2:]))
    _multiply(draft, FIRST, taken, p.lanes, p.inner, repeated(p.inner, p.lanes, 1), steps)
    work = Workers(COPY_NS * planes * prod(p.x[2:]))
    draft.run(put_pixels, taken, draft.bias(channels), RESULT, planes, channels, p.x[2:], p.y[2:], p.stride, work)
    return draft.plan()


# ---- gradients of weights -----------------------------------------------------------------------------------------------
def weight_grad(p: Problem) -> LaunchPlan | None:
    """Computes dw = dy x', summed over the images; where a group has as many channels as a tile has rows."""
    transposes_x = _transposes_x(p)
    if not _one_tap(p) or (p.lanes if transposes_x else p.inner) < strided_shape(p.itemsize)[0]:
        return None
    draft = Draft(p)
    x = _taken(draft)
    if transposes_x:
        _sum_products(draft, x, SECOND, p.inner, p.lanes, (p.inner, 1))
    else:
        _sum_products(draft, SECOND, x, p.lanes, p.inner, (1, p.inner))
    return draft.plan()


def weight_grad_pays(p: Problem) -> bool:
    """Whether it pays: where dw fills half of a tile."""
    return 2 * (p.inner if _transposes_x(p) else p.lanes) >= strided_shape(p.itemsize)[1]


def _transposes_x(p: Problem) -> bool:
    """Whether x is transposed, or dy: that of fewer channels if they fill half of a tile, as far as it matters.

    Transposing x costs a 16th of the products with 64 lanes; with many, writing dw transposed costs more.
    """
    fills = 2 * min(p.inner, p.lanes) >= strided_shape(p.itemsize)[1]
    return min(p.inner, 128) <= p.lanes if fills else p.inner > p.lanes


def _sum_products(draft: Draft, x: Array, dy: Array, channels: int, lanes: int, strides: tuple) -> None:
    """Writes dw = dy x', x being transposed: ``strides`` of dw from one channel of dy, and of x, to the next."""
    p, groups = draft.problem, draft.problem.groups
    rows, columns = tile = strided_shape(p.itemsize)
    batch, pixels = p.x[0], prod(p.y[2:])
    row_blocks, lane_blocks = -(-channels // 256), -(-lanes // 256)
    wide, deep = -(-channels // (row_blocks * columns)) * columns, -(-lanes // (lane_blocks * rows))
    inner = -(-pixels // (-(-pixels * wide // PIECE_ELEMENTS) * columns)) * columns
    pieces, blocks = batch * -(-pixels // inner), row_blocks * lane_blocks * groups
    each = -(-pieces // max(1, 16 // blocks))
    scratch = draft.room(inner * wide + rows * columns, each_worker=True)
    sums = draft.room(-(-pieces // each) * blocks * deep * rows * wide, "float64")
    draft.run(
        pointwise_weight_grad, x, dy, RESULT, scratch, sums, tile, (channels, lanes, pixels, pieces, groups),
        (inner, each, deep, wide, lane_blocks, row_blocks), strides,
        Workers(2 * FLOP_NS * batch * groups * lanes * pixels * channels),
    )  # fmt: skip
