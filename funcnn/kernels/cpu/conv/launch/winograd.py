"""When Winograd's convolution applies on the CPU, and the memory that it works in."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.conv.launch.gather import packed_weights
from funcnn.kernels.cpu.conv.winograd import GAP, winograd_forward, winograd_weight_grad, winograd_weights
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.tiles import strided_shape
from funcnn.kernels.precision import get_float32_conv_precision

CACHE = 3 << 20  # bytes for the transformed patches of a block
VOLUME = 32 << 20  # bytes for those of a volume
TURNS = 2500, 3300  # what a patch of one channel costs, in multiply-adds of the others' products: plain, and dilated
OTHERS, WEIGHTS = 1.16, 1.6  # what a multiply-add of the gathered product costs, its grid and all; of weight gradients
EDGE = 10  # pixels of a plane that other products do for nothing


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


class Patches:
    """The sizes of one call: patches of m x m outputs, channels of one group, and scratch memory for them.

    There are as many images as planes of all volumes, times what the dilation makes of each.
    """

    def __init__(self, shape: tuple, out: tuple, taps: int, before: int, dilation: tuple, groups: int, dtype: np.dtype):
        channels, planes, outputs, goal = *shape[1:3], *out[1:3]
        self.sizes, self.out, self.taps, self.groups, self.dtype = shape[1:], out[1:], taps, groups, dtype
        self.apart = dilation[1:]
        height, width = (-(-size // d) for size, d in zip(out[3:], self.apart, strict=True))
        self.m = 4 if min(height, width) > 2 else 2
        self.down, self.across = -(-height // self.m), -(-width // self.m)
        self.lanes, self.tile = vector_bytes() // dtype.itemsize, strided_shape(dtype.itemsize)
        self.places = (self.m + 2) ** 2
        self.c, self.k = channels // groups, outputs // groups
        self.width, self.row = _up(self.c, self.lanes), _up(self.k, self.tile[1])
        each = self.apart[0] * self.apart[1] * self.down * self.across  # patches of a plane
        given, made = shape[0] * planes * each, shape[0] * goal * each
        if taps == 1:
            self.depth = (1, 1, 1, 0, 1)
            fitting = CACHE // (self.places * (self.width + self.row) * dtype.itemsize)
            block = min(max(_up(fitting, self.tile[0]), 8 * self.tile[0]), _up(made, self.tile[0]))
            self.blocks = (block, block, given, made)
        else:
            self.depth = (planes, goal, taps, before, dilation[0])
            self.blocks = (planes * each, goal * each, given, made)
        self.many = max(1, -(-min(self.blocks[:2]) // 16))
        self.threads = threads.workers(0.01 * 2 * self.places * made * self.c * outputs * taps)

    def layout(self, channels: int, halo: int) -> tuple:
        """The padded image: height, width, channels, patches across and down, lanes."""
        height, width = self.m * self.down + halo, self.m * self.across + halo
        return (height, width, _up(channels, self.lanes), self.across, self.down, self.lanes)

    def image(self, layout: tuple, patches: int) -> np.ndarray:
        """Memory for all images, which have so many patches."""
        images = patches // (self.down * self.across)
        return empty((images * layout[0] * layout[1] * layout[2] + 2 * self.lanes,), self.dtype)

    def block(self, width: int, patches: int) -> np.ndarray:
        """Memory for so many transformed patches of ``width`` channels, and for the tile that the last may not fill."""
        tiles = _up(patches, self.tile[0]) + self.tile[0] * (self.taps > 1)
        return empty((self.places * (tiles * width + GAP) + self.tile[1],), self.dtype)

    def scratch(self) -> np.ndarray:
        return empty((self.threads * 32 * self.lanes,), self.dtype)


def transformed(w: np.ndarray, patches: Patches, table: np.ndarray, stride: int, group: int) -> np.ndarray:
    """The weights in panels of output channels, each 3 x 3 kernel transformed; ``table`` orders their taps."""
    rows = patches.tile[1]
    panels = patches.row // rows
    packed, _ = packed_weights(w, table, patches.groups, patches.k, rows, stride, group)  # bad ones spoil the outputs
    channels = patches.taps * patches.c
    result = empty((patches.groups * panels * channels * patches.places * rows,), w.dtype)
    work = threads.workers(result.size)
    winograd_weights(packed, result, patches.m, patches.groups, channels, panels, rows, patches.lanes, work)
    return result


def forward(x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, padding: tuple, patches: Patches,
            table: np.ndarray, stride: int, group: int) -> bool:  # fmt: skip
    """y (N, K, D, P, Q) = bias + w * x; whether every number of it is finite, and so right."""
    layout, blocks = patches.layout(x.shape[1], 2), patches.blocks
    U = transformed(w, patches, table, stride, group)
    spoiled = np.zeros(blocks[3], y.dtype)
    winograd_forward(
        x, U, bias, y, patches.image(layout, blocks[2]), patches.block(patches.width, blocks[0]),
        patches.block(patches.row, blocks[1]), patches.scratch(), spoiled, patches.m, patches.groups, patches.tile, blocks,
        patches.many, patches.sizes, patches.out, patches.depth, padding[1:], patches.apart, layout, patches.threads,
    )  # fmt: skip
    return not spoiled.any()


def weight_grad(
    x: np.ndarray, dy: np.ndarray, dw: np.ndarray, padding: tuple, dilation: tuple, groups: int
) -> bool:  # fmt: skip
    """dw (K, C, taps, 3, 3) of a convolution with stride 1; whether every number of it is finite."""
    patches = Patches(x.shape, dy.shape, dw.shape[2], padding[0], dilation, groups, x.dtype)
    layout, around, blocks = patches.layout(x.shape[1], 2), patches.layout(dy.shape[1], 0), patches.blocks
    wide = _up(patches.c, patches.tile[0])
    dU = empty((patches.places * (patches.taps * wide * patches.row + GAP),), x.dtype)
    winograd_weight_grad(
        x, dy, dw, patches.image(layout, blocks[2]), patches.image(around, blocks[3]),
        patches.block(patches.width, blocks[0]), patches.block(patches.row, blocks[1]), dU, patches.scratch(), patches.m, groups,
        patches.tile, blocks, patches.many, patches.sizes, patches.out, patches.depth, padding[1:], patches.apart, layout, around,
        patches.threads,
    )  # fmt: skip
    return bool(np.isfinite(dw).all())


def pays(channels: int, lanes: int, deep: int, out: tuple, dilation: tuple, others: float) -> bool:
    """Whether fewer products are worth the transforms, for outputs (P, Q) of one group: not for few channels, nor where
    patches are half empty.

    others: what a multiply-add costs that is done as it is, grid and all, measured in those of whole tiles.
    """
    rows, columns = (-(-size // d) for size, d in zip(out, dilation, strict=True))
    m = 4 if min(rows, columns) > 2 else 2
    patches = -(-rows // m) * -(-columns // m) * dilation[0] * dilation[1]
    turns = TURNS[max(dilation) > 1] * m * m / 16 * (channels + lanes)
    plain = others * (out[0] * out[1] + EDGE) * 9 * channels * lanes * deep
    return patches * ((m + 2) ** 2 * channels * lanes * deep + turns) < plain


def applies(x: Any, kernel: tuple, outputs: int, out: tuple, others: float, stride: tuple, padding: tuple, dilation: tuple,
            groups: int) -> bool:  # fmt: skip
    """3 x 3 with stride 1, enough channels and pixels to pay for the transforms, and a gradient that is of the same kind.

    out: the size of what it makes, or of a weight's gradient the size of dy.

    Taps in depth need a whole volume's patches at a time in memory, which should not be much larger than the caches. Not for
    float32 where the highest precision is wanted.
    """
    if len(kernel) < 2 or kernel[-2:] != (3, 3) or max(stride) > 1 or min(x.shape[1], outputs) < 16 * groups:
        return False
    if x.dtype == np.float32 and get_float32_conv_precision() == "highest":
        return False
    area = zip(padding[-2:], dilation[-2:], x.shape[-2:], strict=True)
    if any(p > 2 * d or size <= 3 * d for p, d, size in area) or x.shape[0] * prod(x.shape[2:]) < 128:
        return False
    if not pays(x.shape[1] // groups, outputs // groups, prod(kernel[:-2]), out[-2:], dilation[-2:], others):
        return False
    if len(kernel) == 2:
        return True
    taps, widest = kernel[0], max(x.shape[1], outputs) // groups
    fits = 3 * x.dtype.itemsize * prod(x.shape[2:]) * widest <= VOLUME
    return padding[0] <= (taps - 1) * dilation[0] and fits
