"""How windows of images are copied into columns, and columns added into images, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.sampling import fold as kernels
from funcnn.kernels.cpu.threads import number as threads

COPY_NS = 0.08  # a byte of columns


CHUNK = 1 << 17  # bytes of columns that a chunk writes or reads


def windows(space: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple) -> tuple[int, ...]:
    """How many windows fit along each dimension; below 1 where none does."""
    return tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(space, size, stride, padding, dilation, strict=True)
    )


def _arguments(images: np.ndarray, columns: np.ndarray, rows: int, where: dict) -> tuple:
    """What both kernels take after their arrays. rows: over how many of a plane the chunks are cut."""
    space, planes = images.shape[2:], images.shape[0] * images.shape[1]
    run = max(1, CHUNK * rows * planes // columns.nbytes)
    names = ("size", "stride", "padding", "dilation")
    order = tuple(where[name] for name in names)
    return (*space, *windows(space, *order)), *order, run, threads.workers(COPY_NS * columns.nbytes)


def unfold(ins: list, outs: list, **where: Any) -> None:
    x, columns = np.ascontiguousarray(ins[0]), outs[0]
    if columns.size:
        rows = windows(x.shape[2:], **where)[0]
        kernels.unfold(x.reshape(-1), columns.reshape(-1), *_arguments(x, columns, rows, where))


def fold(ins: list, outs: list, space: tuple, **where: Any) -> None:
    columns, y = np.ascontiguousarray(ins[0]), outs[0]
    if columns.size:
        kernels.fold(columns.reshape(-1), y.reshape(-1), *_arguments(y, columns, y.shape[2], where))
