"""How windows of images are copied into columns, and columns added into images, on the CPU: launch plans."""

from __future__ import annotations

from math import prod
from typing import Any

from funcnn.kernels.cpu.sampling import fold as kernels
from funcnn.kernels.implementation import ANY, CONTIGUOUS, Implementation, Operand
from funcnn.kernels.launch import INPUT, OUTPUT, Array, Cost, Launch, LaunchPlan, Output, Workers

COPY_NS = 0.08  # a byte of columns
CHUNK_BYTES = 1 << 17  # of columns that a chunk writes or reads


def windows(space: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple) -> tuple[int, ...]:
    """Returns how many windows fit along each dimension; below 1 where none does."""
    return tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(space, size, stride, padding, dilation, strict=True)
    )


def _plan(kernel: Any, images: tuple[int, ...], size: int, by_window: bool, where: dict[str, Any]) -> LaunchPlan:
    """images: the shape (N, C, H, W). size: bytes of an element. by_window: whether chunks are cut over windows, not pixels."""
    order = tuple(where[name] for name in ("size", "stride", "padding", "dilation"))
    counts = windows(images[2:], *order)
    planes, moved = images[0] * images[1], images[0] * images[1] * prod(order[0]) * prod(counts) * size
    if not moved:
        return LaunchPlan((), (ANY,), (Output(),))
    run = max(1, CHUNK_BYTES * (counts[0] if by_window else images[2]) * planes // moved)
    args = (Array(INPUT, 0), Array(OUTPUT, 0), (*images[2:], *counts), *order, run, Workers(COPY_NS * moved))
    cost = Cost(nanoseconds=COPY_NS * moved)
    return LaunchPlan((Launch(kernel, args),), (CONTIGUOUS,), (Output(),), cost=cost)


def _unfold(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    x = operands[0]
    return _plan(kernels.unfold, x.shape, x.itemsize, True, params)


def _fold(operands: tuple[Operand, ...], params: dict[str, Any]) -> LaunchPlan:
    columns, space = operands[0], params["space"]
    images = (columns.shape[0], columns.shape[1] // prod(params["size"]), *space)
    return _plan(kernels.fold, images, columns.itemsize, False, params)


unfolds, folds = (Implementation("kernel", _unfold),), (Implementation("kernel", _fold),)
