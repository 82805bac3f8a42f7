"""When Winograd's convolution applies on the CPU, and the memory that it works in."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.memory import empty
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.conv import pack_weights
from funcnn.kernels.cpu.tiles import strided_shape
from funcnn.kernels.cpu.vector import vector_bytes
from funcnn.kernels.cpu.winograd import GAP, winograd_forward, winograd_weight_grad, winograd_weights

CACHE = 3 << 20  # bytes for the transformed patches of a block


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


class Patches:
    """The sizes of one call: patches of m x m outputs, channels of one group, and scratch memory for them.

    There are as many images as the dilation makes of each.
    """

    def __init__(self, shape: tuple, out: tuple, dilation: tuple, groups: int, dtype: np.dtype):
        channels, outputs = shape[1], out[1]
        self.n = shape[0] * dilation[0] * dilation[1]
        height, width = (-(-size // d) for size, d in zip(out[2:], dilation, strict=True))
        self.dtype, self.groups, self.dilation = dtype, groups, dilation
        self.m = 4 if min(height, width) > 2 else 2
        self.down, self.across = -(-height // self.m), -(-width // self.m)
        self.all = self.n * self.down * self.across
        self.lanes = vector_bytes() // dtype.itemsize
        self.tile = strided_shape(dtype.itemsize)
        self.places = (self.m + 2) ** 2
        self.c, self.k = channels // groups, outputs // groups
        self.width, self.apart = _up(self.c, self.lanes), _up(self.k, self.tile[1])
        fitting = CACHE // (self.places * (self.width + self.apart) * dtype.itemsize)
        self.tiles = min(max(_up(fitting, self.tile[0]), 8 * self.tile[0]), _up(self.all, self.tile[0]))
        self.many = max(1, -(-self.tiles // 16))
        flops = 2 * self.places * self.all * self.c * outputs
        self.threads = threads.workers(0.01 * flops)

    def layout(self, channels: int, halo: int) -> tuple:
        """The padded image: height, width, channels, patches across and down, lanes, all patches."""
        height, width = self.m * self.down + halo, self.m * self.across + halo
        return (height, width, _up(channels, self.lanes), self.across, self.down, self.lanes, self.all)

    def image(self, layout: tuple) -> np.ndarray:
        return empty((self.n * layout[0] * layout[1] * layout[2] + 2 * self.lanes,), self.dtype)

    def block(self, width: int) -> np.ndarray:
        """Memory for transformed patches of ``width`` channels."""
        return empty((self.places * (self.tiles * width + GAP) + self.tile[1],), self.dtype)

    def scratch(self) -> np.ndarray:
        return empty((self.threads * 32 * self.lanes,), self.dtype)


def transformed(w: np.ndarray, patches: Patches, table: np.ndarray, stride: int, group: int) -> np.ndarray:
    """The weights in panels of output channels, each 3 x 3 kernel transformed; ``table`` orders their taps."""
    rows = patches.tile[1]
    panels = patches.apart // rows
    packed = empty((patches.groups * panels * table.size * rows,), w.dtype)
    spoiled = np.empty(patches.groups * panels, w.dtype)  # seen again in the outputs
    work = threads.workers(2 * packed.size)
    pack_weights(w.reshape(-1), table, packed, spoiled, patches.groups, patches.k, rows, stride, group, work)
    result = empty((patches.groups * panels * patches.c * patches.places * rows,), w.dtype)
    work = threads.workers(result.size)
    winograd_weights(packed, result, patches.m, patches.groups, patches.c, panels, rows, patches.lanes, work)
    return result


def forward(x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, padding: tuple, patches: Patches,
            table: np.ndarray, stride: int, group: int) -> bool:  # fmt: skip
    """y (N, K, P, Q) = bias + w * x; whether every number of it is finite, and so right."""
    layout = patches.layout(x.shape[1], 2)
    U = transformed(w, patches, table, stride, group)
    spoiled = np.zeros(patches.all, y.dtype)
    winograd_forward(
        x, U, bias, y, patches.image(layout), patches.block(patches.width), patches.block(patches.apart), patches.scratch(),
        spoiled, patches.m, patches.groups, patches.tile, patches.tiles, patches.many, x.shape[1:], padding, patches.dilation,
        layout, patches.threads,
    )  # fmt: skip
    return not spoiled.any()


def weight_grad(
    x: np.ndarray, dy: np.ndarray, dw: np.ndarray, padding: tuple, dilation: tuple, groups: int
) -> bool:  # fmt: skip
    """dw (K, C, 3, 3) of a convolution with stride 1; whether every number of it is finite."""
    patches = Patches(x.shape, dy.shape, dilation, groups, x.dtype)
    layout, around = patches.layout(x.shape[1], 2), patches.layout(dy.shape[1], 0)
    wide = _up(patches.c, patches.tile[0])
    dU = empty((patches.places * (wide * patches.apart + GAP),), x.dtype)
    winograd_weight_grad(
        x, dy, dw, patches.image(layout), patches.image(around), patches.block(patches.width), patches.block(patches.apart), dU,
        patches.scratch(), patches.m, groups, patches.tile, patches.tiles, patches.many, x.shape[1:], padding, dilation,
        layout, around, patches.threads,
    )  # fmt: skip
    return bool(np.isfinite(dw).all())


def applies(x: Any, kernel: tuple, outputs: int, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> bool:
    """3 x 3 with stride 1, enough channels and pixels to pay for the transforms, and a gradient that is of the same kind."""
    return (
        kernel == (3, 3)
        and stride == (1, 1)
        and all(p <= 2 * d and size > 3 * d for p, d, size in zip(padding, dilation, x.shape[2:], strict=True))
        and min(x.shape[1], outputs) >= 16 * groups
        and x.shape[0] * x.shape[2] * x.shape[3] >= 128
    )
