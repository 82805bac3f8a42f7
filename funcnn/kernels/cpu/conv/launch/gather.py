"""Convolution and its two gradients by the gathered product, which serves every shape that is not empty."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.gather import SLACK, convolve, convolve_images, pack_weights, spread
from funcnn.kernels.cpu.conv.gather_weight import convolve_weight_grad, image_weight_grad
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.volume import bias_of, volume, where_of
from funcnn.kernels.cpu.conv.phases import convolve_phases
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.tiles import FEW, dots_shape, few_shape

SPREAD_NS = 0.3  # nanoseconds a number for the copies
FLOP_NS = 0.01  # nanoseconds a flop in a tile
ENOUGH = 8  # images from which a weight gradient is summed by images
SMALL = 1 << 16  # weights whose gradient every chunk of images can sum up for itself


def applies(ins: list, **where: Any) -> bool:
    """There is something to multiply."""
    return bool(ins[0].size and ins[1].size)


def _spread(x: np.ndarray, image: tables.Image) -> np.ndarray:
    """x (N, C, D, H, W) in the image's layout."""
    if image.direct:
        return x.reshape(-1)
    planes = x.shape[0] * x.shape[1]
    spacious = empty((planes * image.size + SLACK,), x.dtype)
    work = threads.workers(SPREAD_NS * spacious.size)
    spread(x, spacious, planes, image.layout, work)
    return spacious


def packed_weights(
    w: np.ndarray, table: np.ndarray, groups: int, lanes: int, rows: int, stride: int, group: int, room: Any = None
) -> tuple[np.ndarray, bool]:
    """The weights in panels of ``rows`` lanes, ``stride`` apart, and whether they are finite; the table orders the rest."""
    panels = groups * -(-lanes // rows)
    packed = empty((panels * rows * table.size,), w.dtype) if room is None else room
    spoiled = fresh(panels, w.dtype)
    work = threads.workers(2 * packed.size)
    pack_weights(w.reshape(-1), table, packed, spoiled, groups, lanes, rows, stride, group, work)
    return packed, not spoiled.any()


def _packed_parts(w: np.ndarray, parts: tables.Parts, groups: int, lanes: int, stride: int, group: int) -> tuple:
    """The weights of all parts, one after the other, and whether they are finite."""
    rows = tile_of(lanes, w.itemsize)[0]
    each = groups * -(-lanes // rows) * rows
    packed, finite, first = empty((parts.offsets.size * each,), w.dtype), True, 0
    for part in parts.each:
        room = packed[first : first + part.offsets.size * each]
        finite &= packed_weights(w, part.table, groups, lanes, rows, stride, group, room)[1]
        first += room.size
    return packed, finite


def tile_of(lanes: int, itemsize: int) -> tuple[int, int]:
    """Rows and columns of the tile for so many output channels of a group."""
    return few_shape(itemsize) if lanes <= FEW else tile_shape(itemsize)


def _product(x: np.ndarray, layout: tables.Image, parts: tables.Parts, packed: np.ndarray, bias: np.ndarray, y: np.ndarray,
             inner: int, groups: int) -> None:  # fmt: skip
    """y (N, K, D, H, W) from x of ``inner`` channels a group and the packed weights of all parts.

    By images where each worker gets some. Both ways add the same numbers in the same order, so the choice may depend on the CPUs.
    """
    if not layout.direct and x.shape[0] * groups >= min(max(2 * threads.available(), 4), 16):
        together = len(parts.each) > 1 and y.shape[1] // groups > FEW and tables.alike(parts.each)
        by_images = _all_phases if together else _by_images
        by_images(x, layout, parts, packed, bias, y, inner, groups)
        return
    image, first, each = _spread(x, layout), 0, packed.size // parts.offsets.size
    for part, row in zip(parts.each, parts.rows.tolist(), strict=True):
        count = part.offsets.size * each
        _by_tiles(image, layout, part, row, packed[first : first + count], bias, y, inner, groups)
        first += count


def _by_images(x: np.ndarray, layout: tables.Image, parts: tables.Parts, packed: np.ndarray, bias: np.ndarray, y: np.ndarray,
               inner: int, groups: int) -> None:  # fmt: skip
    lanes = y.shape[1] // groups
    tile = tile_of(lanes, y.itemsize)
    work = threads.workers(2 * FLOP_NS * y.size * parts.offsets.size // len(parts.each))
    images, scratch = (
        empty((work * (inner * layout.size + SLACK),), y.dtype),
        empty((work * tile[0] * tile[1],), y.dtype),
    )
    convolve_images(
        x, images, packed, parts.offsets, bias, y, scratch, tile, lanes, layout.layout, inner, parts.rows,
        (y[0].size, y[0, 0].size, groups), y.shape[0], work,
    )  # fmt: skip


def _all_phases(x: np.ndarray, layout: tables.Image, parts: tables.Parts, packed: np.ndarray, bias: np.ndarray,
                y: np.ndarray, inner: int, groups: int) -> None:  # fmt: skip
    """By images, all parts together: what they write lies between each other."""
    lanes, first, row = y.shape[1] // groups, parts.each[0], parts.rows[0].tolist()
    tile = tile_shape(y.itemsize)
    ends, begins = np.append(parts.rows[:, 0], parts.offsets.size), np.ascontiguousarray(parts.rows[:, 3])
    work = threads.workers(2 * FLOP_NS * y.size * parts.offsets.size / len(parts.each))
    images = empty((work * (inner * layout.size + SLACK),), y.dtype)
    scratch = empty((work * len(parts.each) * tile[0] * tile[1],), y.dtype)
    convolve_phases(
        x, images, packed, parts.offsets, ends, begins, bias, y, scratch, tile, first.grid, lanes, layout.layout, first.step,
        inner, (y[0].size, y[0, 0].size, *row[8:], groups, 0), y.shape[0], work,
    )  # fmt: skip


def _by_tiles(image: np.ndarray, layout: tables.Image, part: tables.Part, row: list, packed: np.ndarray, bias: np.ndarray,
              y: np.ndarray, inner: int, groups: int) -> None:  # fmt: skip
    n, k = y.shape[:2]
    lanes = k // groups
    rows, columns = tile = tile_of(lanes, y.itemsize)
    planes, height, width, pitch = part.grid
    pixel_tiles, lane_tiles = -(-((height - 1) * pitch + width) // columns), -(-lanes // rows)
    flops = 2 * columns * rows * part.offsets.size  # of one tile
    each = max(1, min(pixel_tiles, int(4e6 / (flops * lane_tiles))))
    deep = lane_tiles if n * planes * groups * -(-pixel_tiles // each) >= 8 else -(-lane_tiles // 8)
    blocks = (-(-pixel_tiles // each), each, -(-lane_tiles // deep), deep)
    steps = (groups * inner * layout.size, inner * layout.size, part.step)
    work = threads.workers(FLOP_NS * flops * pixel_tiles * lane_tiles * groups * n * planes)
    scratch = empty((work * rows * columns,), y.dtype)
    strides = (y[0].size, y[0, 0].size, *row[8:], groups, row[3])
    convolve(image, packed, part.offsets, bias, y, scratch, tile, part.grid, lanes, blocks, steps, strides, n, work)


def forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    """y = w * x + bias by the gathered product."""
    x, w, y = volume(ins[0]), volume(ins[1]), volume(outs[0])
    k, inner, *kernel = w.shape
    lanes, where = k // groups, where_of(stride, padding, dilation)
    layout, parts = tables.forward_parts(x.shape[2:], inner, tuple(kernel), *where, tile_of(lanes, y.itemsize)[1])
    taps = parts.offsets.size
    packed, finite = _packed_parts(w, parts, groups, lanes, taps, lanes * taps)
    if finite or not any(padding):
        _product(x, layout, parts, packed, bias_of(ins, y), y, inner, groups)
    else:
        reference.forward(ins, outs, stride, padding, dilation, groups)


def input_grad(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple) -> None:
    """dx from dy and w by the gathered product, one part for each phase of the stride."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), volume(outs[0])
    k, channels, *kernel = w.shape
    lanes, taps, bias = k // groups, prod(kernel), bias_of(ins, dx)
    where = where_of(stride, padding, dilation)
    layout, parts, untouched = tables.input_grad_parts(
        dx.shape[2:], dy.shape[2:], lanes, channels, tuple(kernel), *where
    )
    packed, finite = _packed_parts(w, parts, groups, channels, taps, lanes * channels * taps)
    if not finite:
        reference.input_grad(ins, outs, stride, padding, dilation, groups, size)
        return
    if parts.each:
        _product(dy, layout, parts, packed, bias, dx, lanes, groups)
    for part in untouched:
        place: Any = (..., *(slice(a, None, t) for a, t in zip(part.phase, part.strides, strict=True)))
        dx[place] = bias.reshape(-1, 1, 1, 1)


def _dots_by_images(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, layout: tables.Image, around: tables.Image,
                    part: tables.Part, groups: int) -> None:  # fmt: skip
    many, each = tile = dots_shape()
    lanes, inner, rows, n = dw.shape[0] // groups, dw.shape[1], part.offsets.size, x.shape[0]
    images = -(-n // 16)  # of a chunk
    sizes = (lanes, rows, inner, n, part.grid[0], around.slice_size, images)
    work = threads.workers(2 * FLOP_NS * dw.shape[0] * rows * n * part.grid[0] * around.slice_size)
    room = empty((work * (inner * layout.size + lanes * around.size + 2 * SLACK),), dw.dtype)
    sums = empty((-(-n // images) * groups * -(-lanes // many) * -(-rows // each) * many * each,), np.dtype(np.float64))
    image_weight_grad(
        x, dy, room, tables.repeated(around.size, lanes, many), tables.to_tiles(part.offsets, each), dw, sums, tile, sizes,
        part.step, groups, tables.pieces(around.slice_size, vector_bytes() // dw.itemsize), layout.layout, around.layout, work,
    )  # fmt: skip


def _dots_by_tiles(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, layout: tables.Image, around: tables.Image,
                   part: tables.Part, groups: int) -> None:  # fmt: skip
    many, each = tile = dots_shape()
    (k, inner), rows = dw.shape[:2], part.offsets.size
    lanes = k // groups
    image, cotangent = _spread(x, layout), _spread(dy, around)
    lane_tiles, row_tiles = -(-lanes // many), -(-rows // each)
    high = max(1, min(lane_tiles, 8))
    wide = max(1, min(row_tiles, -(-row_tiles * -(-lane_tiles // high) * groups // 16)))
    blocks = (-(-lane_tiles // high), high, -(-row_tiles // wide), wide)
    sizes = (lanes, rows, x.shape[0], part.grid[0], around.slice_size)
    steps = (groups * inner * layout.size, inner * layout.size, part.step)
    beside = (k * around.size, lanes * around.size, around.slice_size)
    work = threads.workers(FLOP_NS * 2 * k * rows * sizes[2] * sizes[3] * sizes[4])
    scratch = empty((work * high * wide * many * each,), np.dtype(np.float64))
    convolve_weight_grad(
        image, cotangent, tables.repeated(around.size, lanes, many), tables.to_tiles(part.offsets, each), dw, scratch, tile,
        blocks, sizes, (*steps, *beside), groups, tables.pieces(around.slice_size, vector_bytes() // dw.itemsize), work,
    )  # fmt: skip


def weight_grad(
    ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple
) -> None:
    """dw from x and dy by dot products along the pixels."""
    x, dy, dw = volume(ins[0]), volume(ins[1]), volume(outs[0])
    _, inner, *kernel = dw.shape
    vector = vector_bytes() // dw.itemsize
    sizes = (x.shape[2:], inner, tuple(kernel), *where_of(stride, padding, dilation))
    layout, part = tables.forward(*sizes, vector)
    around = tables.cotangent(dy.shape[2:], part.grid[3], vector)
    if layout.direct and not around.direct:  # the last vector would read beyond x
        layout, part = tables.forward(*sizes, tables.COPY)
    dots = _dots_by_images if dw.size <= SMALL and x.shape[0] >= ENOUGH else _dots_by_tiles
    dots(x, dy, dw, layout, around, part, groups)
    reference.mend_weight_grad(ins, outs, stride, padding, dilation, groups, size)
