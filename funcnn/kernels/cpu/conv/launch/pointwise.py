"""Convolution with kernels of one tap and its two gradients as products: when, and how the work is cut."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.conv.launch.gather import FLOP_NS, packed_weights
from funcnn.kernels.cpu.conv.launch.volume import bias_of, volume, where_of
from funcnn.kernels.cpu.conv.pointwise import pointwise
from funcnn.kernels.cpu.conv.pointwise_weight import pointwise_weight_grad
from funcnn.kernels.cpu.conv.tables import Three, repeated
from funcnn.kernels.cpu.machine import beyond_cache, tile_shape
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.tiles import strided_shape

BLOCK = 96 << 10  # bytes of a block of pixels: this one, the next and weights fit the second-level cache
PIECE = 1 << 16  # numbers of a piece that is turned round
CHUNKS = 32  # at least, where there is work for them: eight or sixteen threads get equal shares


def _apart(array: np.ndarray, stride: Three) -> np.ndarray:
    """The pixels that strides take, a view."""
    return array[:, :, :: stride[0], :: stride[1], :: stride[2]]


def _taken(array: np.ndarray, stride: Three) -> np.ndarray:
    """The same as an array of their own."""
    if max(stride) == 1:
        return array
    view = _apart(array, stride)
    pixels = empty(view.shape, array.dtype)
    pixels[:] = view
    return pixels


def _multiply(x: np.ndarray, w: np.ndarray, table: np.ndarray, strides: tuple, bias: np.ndarray, y: np.ndarray,
              groups: int) -> None:  # fmt: skip
    """y = bias + weights x, where the table has places of w for the channels of x, and strides its lanes' and groups'."""
    rows, columns = tile = tile_shape(y.itemsize)
    count, lanes, pixels, batch = x.shape[1] // groups, y.shape[1] // groups, y[0, 0].size, y.shape[0]
    packed, _ = packed_weights(w, table, groups, lanes, rows, *strides)
    wide = columns * max(1, min(8, BLOCK // (count * columns * y.itemsize)))
    blocks, panels = -(-batch * pixels // wide), -(-lanes // rows)
    each = max(1, blocks * groups // CHUNKS)
    chunks = -(-blocks // each)
    deep = -(-panels // max(1, min(panels, 16 // (chunks * groups))))
    work = threads.workers(2 * FLOP_NS * y.size * count)
    scratch, places = empty((work * (count + rows) * wide,), y.dtype), empty((work * 6 * wide,), np.dtype(np.int64))
    pointwise(
        x, packed, bias, y, scratch, places, tile, (count, lanes, pixels, batch, groups),
        (wide, each, chunks, -(-panels // deep), deep), beyond_cache(x.nbytes + y.nbytes), work,
    )  # fmt: skip


def forward(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> None:
    """y = w x + bias."""
    x, w, y = _taken(volume(ins[0]), where_of(stride, padding, dilation)[0]), volume(ins[1]), volume(outs[0])
    k, channels = w.shape[:2]
    strides = (channels, k // groups * channels)
    _multiply(x, w, repeated(1, channels, 1), strides, bias_of(ins, y), y, groups)


def input_grad(ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple) -> None:
    """dx = w' dy; pixels that strides leave out have no gradient."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), volume(outs[0])
    k, channels = w.shape[:2]
    lanes, bias, apart = k // groups, bias_of(ins, dx), where_of(stride, padding, dilation)[0]
    taken = dx if max(apart) == 1 else empty((*dx.shape[:2], *dy.shape[2:]), dx.dtype)
    _multiply(dy, w, repeated(channels, lanes, 1), (1, lanes * channels), bias, taken, groups)
    if taken is not dx:
        dx[:] = bias.reshape(-1, 1, 1, 1)
        _apart(dx, apart)[:] = taken


def weight_grad(
    ins: list, outs: list, stride: tuple, padding: tuple, dilation: tuple, groups: int, size: tuple
) -> None:
    """dw = dy x', summed over the images."""
    x, dy, dw = volume(ins[0]), volume(ins[1]), volume(outs[0])
    x = _taken(x, where_of(stride, padding, dilation)[0])
    channels, lanes = dw.shape[1], dw.shape[0] // groups
    if _turns_x(channels, lanes, dw.itemsize):
        _sum_products(x, dy, dw, (channels, 1), groups)
    else:
        _sum_products(dy, x, dw, (1, channels), groups)


def _turns_x(channels: int, lanes: int, itemsize: int) -> bool:
    """Whether x is turned round, or dy: that of fewer channels if they fill half of a tile, as far as it matters.

    Turning x costs a 16th of the products with 64 lanes; with many, writing dw turned costs more.
    """
    fills = 2 * min(channels, lanes) >= strided_shape(itemsize)[1]
    return min(channels, 128) <= lanes if fills else channels > lanes


def _sum_products(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, strides: tuple, groups: int) -> None:
    """dw = dy x', x being turned round: ``strides`` of dw from one channel of dy, and of x, to the next."""
    rows, columns = tile = strided_shape(dw.itemsize)
    channels, lanes, pixels = x.shape[1] // groups, dy.shape[1] // groups, dy[0, 0].size
    row_blocks, lane_blocks = -(-channels // 256), -(-lanes // 256)
    wide, deep = -(-channels // (row_blocks * columns)) * columns, -(-lanes // (lane_blocks * rows))
    inner = -(-pixels // (-(-pixels * wide // PIECE) * columns)) * columns
    pieces, blocks = x.shape[0] * -(-pixels // inner), row_blocks * lane_blocks * groups
    each = -(-pieces // max(1, 16 // blocks))
    work = threads.workers(2 * FLOP_NS * dy.size * channels)
    scratch = empty((work * (inner * wide + rows * columns),), dw.dtype)
    sums = empty((-(-pieces // each) * blocks * deep * rows * wide,), np.dtype(np.float64))
    pointwise_weight_grad(
        x, dy, dw, scratch, sums, tile, (channels, lanes, pixels, pieces, groups),
        (inner, each, deep, wide, lane_blocks, row_blocks), strides, work,
    )  # fmt: skip


def applies(ins: list, padding: tuple, size: tuple = (1,), **where: Any) -> bool:
    """Whether all taps are one, without padding, and there is something to multiply; of x or dy and w."""
    return max(ins[1].shape[2:]) == 1 and not any(padding) and min(ins[0].size, ins[1].size, *size) > 0


def applies_to_weights(ins: list, padding: tuple, size: tuple, groups: int, **where: Any) -> bool:
    """The same for x and dy, where dw fills half of a tile."""
    if max(size) > 1 or any(padding) or not min(ins[0].size, ins[1].size):
        return False
    rows, columns = strided_shape(ins[0].itemsize)
    channels, lanes = ins[0].shape[1] // groups, ins[1].shape[1] // groups
    right, left = (channels, lanes) if _turns_x(channels, lanes, ins[0].itemsize) else (lanes, channels)
    return left >= rows and 2 * right >= columns
