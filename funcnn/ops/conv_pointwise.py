"""Convolution with kernels of one tap and its two gradients as products: when, and how the work is cut."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from funcnn.core.memory import empty
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.conv_tables import Three, repeated
from funcnn.kernels.cpu.pointwise import pointwise
from funcnn.kernels.cpu.pointwise_weight import pointwise_weight_grad
from funcnn.kernels.cpu.stream import beyond_cache
from funcnn.kernels.cpu.tiles import strided_shape
from funcnn.kernels.cpu.vector import tile_shape
from funcnn.ops.conv_gather import FLOP_NS, packed_weights
from funcnn.ops.conv_volume import bias_of, volume, where_of

BLOCK = 24576  # float32 numbers of a block of pixels: 96 KB, so that this block, the next and weights fit the second-level cache
PIECE = 1 << 16  # numbers of a piece that is turned round
CHUNKS = 32  # at least, where there is work for them: eight or sixteen threads get equal shares


@lru_cache(512)
def _rows(size: Three, out: Three, stride: Three) -> tuple[np.ndarray, np.ndarray, int]:
    """Where the rows of pixels begin that a stride takes from ``size``, and those of ``out``; the pixels in one."""
    if max(stride) == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64), prod(out)
    d, h = np.arange(out[0]) * stride[0], np.arange(out[1]) * stride[1]
    return np.add.outer(d * size[1], h).ravel() * size[2], np.arange(out[0] * out[1]) * out[2], out[2]


def _strides(array: np.ndarray, apart: int) -> tuple[int, int, int]:
    """From image, channel and pixel to the next."""
    return array[0].size, array[0, 0].size, apart


def _multiply(x: np.ndarray, x_side: tuple, packed: np.ndarray, bias: np.ndarray, y: np.ndarray, y_side: tuple, run: int,
              groups: int) -> None:  # fmt: skip
    """y = bias + weights x; the sides are (where rows begin, how far pixels are apart)."""
    rows, columns = tile = tile_shape(y.itemsize)
    count, lanes = x.shape[1] // groups, y.shape[1] // groups
    pixels = x.shape[0] * run * x_side[0].size
    wide = columns * max(1, min(8, BLOCK * 4 // y.itemsize // (count * columns)))
    blocks, panels = -(-pixels // wide), -(-lanes // rows)
    each = max(1, blocks * groups // CHUNKS)
    chunks = -(-blocks // each)
    deep = -(-panels // max(1, min(panels, 16 // (chunks * groups))))
    work = threads.workers(2 * FLOP_NS * pixels * lanes * count * groups)
    scratch = empty((work * (count + rows) * wide,), y.dtype)
    places = empty((work * 6 * wide,), np.dtype(np.int64))
    pointwise(
        x, x_side[0], packed, bias, y, y_side[0], scratch, places, tile, (count, lanes, pixels), run,
        (wide, each, chunks, -(-panels // deep), deep), _strides(x, x_side[1]), _strides(y, y_side[1]),
        beyond_cache(x.nbytes + y.nbytes), groups, work,
    )  # fmt: skip


def forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    """y = w x + bias."""
    x, w, y = volume(ins[0]), volume(ins[1]), volume(outs[0])
    k, channels = w.shape[:2]
    apart = where_of(stride, padding, dilation)[0]
    x_rows, y_rows, run = _rows(x.shape[2:], y.shape[2:], apart)
    packed, _ = packed_weights(
        w, repeated(1, channels, 1), groups, k // groups, tile_shape(y.itemsize)[0], channels, k // groups * channels
    )
    _multiply(x, (x_rows, apart[2]), packed, bias_of(ins, y), y, (y_rows, 1), run, groups)


def input_grad(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple) -> None:
    """dx = w' dy; the pixels that a stride leaves out have no gradient."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), volume(outs[0])
    k, channels = w.shape[:2]
    apart = where_of(stride, padding, dilation)[0]
    x_rows, y_rows, run = _rows(dx.shape[2:], dy.shape[2:], apart)
    bias = bias_of(ins, dx)
    if max(apart) > 1:
        dx[:] = bias.reshape(-1, 1, 1, 1)
    packed, _ = packed_weights(
        w, repeated(channels, k // groups, 1), groups, channels, tile_shape(dx.itemsize)[0], 1, k // groups * channels
    )
    _multiply(dy, (y_rows, 1), packed, bias, dx, (x_rows, apart[2]), run, groups)


def _sum_products(x: np.ndarray, x_rows: np.ndarray, run: int, apart: int, dy: np.ndarray, dw: np.ndarray, groups: int,
                  dw_strides: tuple) -> None:  # fmt: skip
    """dw = dy x', x being turned round: ``dw_strides`` from one channel of dy, and of x, to the next."""
    rows, columns = tile = strided_shape(dw.itemsize)
    channels, lanes, pixels = x.shape[1] // groups, dy.shape[1] // groups, dy[0, 0].size
    row_blocks, lane_blocks = -(-channels // 256), -(-lanes // 256)
    wide, deep = -(-channels // (row_blocks * columns)) * columns, -(-lanes // (lane_blocks * rows))
    inner = -(-pixels // (-(-pixels * wide // PIECE) * columns)) * columns
    pieces = x.shape[0] * -(-pixels // inner)
    blocks = row_blocks * lane_blocks * groups
    each = -(-pieces // max(1, 16 // blocks))
    work = threads.workers(2 * FLOP_NS * dy.size * channels)
    scratch = empty((work * (2 * inner * wide + rows * columns),), dw.dtype)
    places = empty((work * 3 * inner,), np.dtype(np.int64))
    sums = empty((-(-pieces // each) * blocks * deep * rows * wide,), np.dtype(np.float64))
    pointwise_weight_grad(
        x, x_rows, dy, dw, scratch, places, sums, tile, (channels, lanes, pixels, pieces), run,
        (inner, each, deep, wide, lane_blocks, row_blocks, groups), _strides(x, apart), dw_strides, work,
    )  # fmt: skip


def weight_grad(
    ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple
) -> None:
    """dw = dy x', summed over the images."""
    x, dy, dw = volume(ins[0]), volume(ins[1]), volume(outs[0])
    channels, lanes = dw.shape[1], dw.shape[0] // groups
    apart = where_of(stride, padding, dilation)[0]
    x_rows, dy_rows, run = _rows(x.shape[2:], dy.shape[2:], apart)
    if _turns_x(channels, lanes, apart, dw.itemsize):
        _sum_products(x, x_rows, run, apart[2], dy, dw, groups, (channels, 1))
    else:
        _sum_products(dy, dy_rows, run, 1, x, dw, groups, (1, channels))


def _turns_x(channels: int, lanes: int, stride: tuple, itemsize: int) -> bool:
    """Whether x is turned round, or dy: that of fewer channels if they fill half of a tile, as far as it matters.

    Turning x costs a 16th of the products with 64 lanes; with many, writing dw turned costs more. Only x may lie in rows.
    """
    half = strided_shape(itemsize)[1] // 2
    if max(stride) > 1:
        return True
    return min(channels, 128) <= lanes if min(channels, lanes) >= half else channels > lanes


def applies(ins: list, padding: tuple, size: tuple = (1,), **where: Any) -> bool:
    """Whether all taps are one, without padding, and there is something to multiply; of x or dy and w."""
    return max(ins[1].shape[2:]) == 1 and not any(padding) and min(ins[0].size, ins[1].size, *size) > 0


def applies_to_weights(ins: list, padding: tuple, size: tuple, groups: int, stride: tuple, **where: Any) -> bool:
    """The same for x and dy, where dw fills half of a tile."""
    if max(size) > 1 or any(padding) or not min(ins[0].size, ins[1].size):
        return False
    rows, columns = strided_shape(ins[0].itemsize)
    channels, lanes = ins[0].shape[1] // groups, ins[1].shape[1] // groups
    right, left = (channels, lanes) if _turns_x(channels, lanes, stride, ins[0].itemsize) else (lanes, channels)
    return left >= rows and 2 * right >= columns
