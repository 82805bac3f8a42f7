"""When depthwise convolution applies on the CPU: one input channel a group, one or two dimensions."""

from __future__ import annotations

import numpy as np

from funcnn.core.memory import empty
from funcnn.kernels.cpu import conv_tables as tables
from funcnn.kernels.cpu import threads
from funcnn.kernels.cpu.depthwise import ROWS, depthwise
from funcnn.kernels.cpu.tiles import row_columns


def applies(channels: int, groups: int, stride: tuple) -> bool:
    """One channel a group, at least eight of them, and a plane to work on."""
    return channels == groups >= 8 and len(stride) < 3


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
    planes = max(1, int(2e5 / max(part.offsets.size * P * Q * many, 1)))
    work = threads.workers(0.1 * y.size * part.offsets.size)
    room = layout.size + (ROWS + 2) * layout.places[2] + 2 * ROWS * columns  # tiles read beyond the plane
    scratch = empty((work, -(-room // 16) * 16), y.dtype)
    scratch[:] = 0
    depthwise(
        x.reshape(-1, height, width), w, bias, y, scratch, part.offsets, planes, layout.layout, (P, Q, many, channels, n),
        columns, nine, work,
    )  # fmt: skip
