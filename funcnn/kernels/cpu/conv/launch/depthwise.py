"""When depthwise convolution applies on the CPU: one input channel a group, one or two dimensions."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.depthwise import ROWS, depthwise
from funcnn.kernels.cpu.conv.depthwise_weight import TAPS, depthwise_weight_grad
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.tiles import row_columns

TAP_NS = 0.1  # a multiply-add
IMAGES = 16  # groups of images that a weight gradient has sums for, at most


def applies(channels: int, groups: int, stride: tuple) -> bool:
    """One channel a group, at least eight of them, and a plane to work on."""
    return channels == groups >= 8 and len(stride) < 3


def _planes(size: int) -> int:
    """Input planes of a chunk, each of so many multiply-adds."""
    return max(1, int(2e5 / max(size, 1)))


def forward(x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, where: tuple) -> None:
    """y (N, K, 1, P, Q) from x (N, C, 1, H, W) and w (K, 1, 1, kh, kw); ``where``: stride, padding, dilation of three."""
    if not y.size:
        return
    n, channels, _, height, width = x.shape
    kernel = w.shape[2:]
    layout, part = tables.forward((1, height, width), 1, kernel, *where, tables.COPY)
    _, P, Q, _ = part.grid
    nine = kernel == (1, 3, 3) and where[0] == where[2] == (1, 1, 1)
    columns = row_columns(y.itemsize) // (2 if nine else 1)
    many = y.shape[1] // channels
    planes = _planes(part.offsets.size * P * Q * many)
    work = threads.workers(TAP_NS * y.size * part.offsets.size)
    room = layout.size + (ROWS + 2) * layout.places[2] + 2 * ROWS * columns  # tiles read beyond the plane
    scratch = empty((work, -(-room // 16) * 16), y.dtype)
    scratch[:] = 0
    depthwise(
        x.reshape(-1, height, width), w, bias, y, scratch, part.offsets, planes, layout.layout, (P, Q, many, channels, n),
        columns, nine, work,
    )  # fmt: skip


def weight_grad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, where: tuple) -> None:
    """dw (K, 1, 1, kh, kw) from x (N, C, 1, H, W) and dy (N, K, 1, P, Q)."""
    n, channels, _, height, width = x.shape
    many, lanes = dy.shape[1] // channels, vector_bytes() // dw.itemsize
    layout, part = tables.forward((1, height, width), 1, dw.shape[2:], *where, tables.COPY)
    around = tables.cotangent(dy.shape[2:], part.grid[3], lanes)
    offsets = tables.to_tiles(part.offsets, TAPS)
    images = -(-n // IMAGES)
    run = max(1, _planes(part.offsets.size * around.size * many) // images)
    work = threads.workers(TAP_NS * dy.size * part.offsets.size)
    reach = max(layout.size, int(offsets.max()) + around.size)  # vectors read beyond the plane
    scratch = empty((work, -(-reach // 16) * 16 + around.size), dw.dtype)
    scratch[:] = 0
    sums = empty((-(-n // images) * dy.shape[1] * offsets.size,), np.dtype(np.float64))
    depthwise_weight_grad(
        x.reshape(-1, height, width), dy.reshape(-1, *dy.shape[3:]), dw, sums, scratch, offsets, (channels, many, n),
        (images, run), tables.pieces(around.size, lanes), layout.layout, around.layout, work,
    )  # fmt: skip
