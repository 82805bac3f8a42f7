"""When a convolution has few pixels for its weights on the CPU, and how the work is cut."""

from __future__ import annotations

from functools import lru_cache
from math import gcd, prod
from typing import Any

import numpy as np

from funcnn.kernels.cpu.conv import tables
from funcnn.kernels.cpu.conv.few import convolve_few, few_input_grad, few_weight_grad
from funcnn.kernels.cpu.conv.launch import reference
from funcnn.kernels.cpu.conv.launch.gather import FLOP_NS
from funcnn.kernels.cpu.conv.launch.volume import bias_of, three, volume, where_of
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.memory import empty
from funcnn.kernels.cpu.threads import number as threads
from funcnn.kernels.cpu.vector.tiles import dots_shape, strided_shape

PIXELS = 128  # of the batch at most
APART = 300, 1000, 700  # the same of outputs, gradients of inputs and of weights where kernels hardly overlap
SHARED = 1.6  # taps that meet a number of the image there, at most
UNFOLDED = 7 << 18  # bytes of the unfolded pixels then: they stay in the second-level cache
WEIGHTS = 1 << 14  # at least: fewer are packed in no time
PIECE = 3 << 10  # bytes of a row at a time: of ten rows they fit the first-level cache
CHUNKS = 16  # at least


@lru_cache(512)
def places_of(size: tuple, kernel: tuple, out: tuple, stride: tuple, padding: tuple, dilation: tuple) -> np.ndarray:
    """(pixels of y, taps): which number of a volume of x each tap of a pixel meets, -1 for padding."""
    at, meets = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for n, k, o, s, p, d in zip(size, kernel, out, stride, padding, dilation, strict=True):
        axis = np.add.outer(np.arange(o) * s - p, np.arange(k) * d)
        shape = (at.shape[0] * o, at.shape[1] * k)
        meets = (meets[:, None, :, None] & ((axis >= 0) & (axis < n))[None, :, None, :]).reshape(shape)
        at = (at[:, None, :, None] * n + axis[None, :, None, :]).reshape(shape)
    return np.where(meets, at, -1)


def _sizes(x: tuple, w: tuple, out: tuple, itemsize: int) -> tuple:
    """What the kernels call so. Unfolded pixels lie an odd number of vectors apart, and so in different sets of the cache."""
    lanes = vector_bytes() // itemsize
    pitch = (-(-w[1] * prod(w[2:]) // lanes) | 1) * lanes
    return w[1], w[0], prod(w[2:]), prod(out), prod(x[2:]), x[0], pitch


def _places(x: tuple, kernel: tuple, out: tuple, where: dict) -> np.ndarray:
    lie = where_of(where["stride"], where["padding"], where["dilation"])
    return places_of(three(x[2:]), three(kernel), three(out), *lie).reshape(-1)


def _work(sizes: tuple) -> int:
    return threads.workers(2 * FLOP_NS * sizes[0] * sizes[1] * sizes[2] * sizes[3] * sizes[5])


def forward(ins: list, outs: list, **where: Any) -> None:
    """y = bias + w * x. By the definition where it is not finite: such weights may have met padding."""
    x, w, y = volume(ins[0]), volume(ins[1]), outs[0]
    sizes = _sizes(x.shape, w.shape, y.shape[2:], y.itemsize)
    (many, each), pixels, work = dots_shape(), sizes[3] * sizes[5], _work(sizes)
    rows, offsets = tables.repeated(w[0].size, w.shape[0], many), tables.repeated(sizes[6], pixels, each)
    deep = -(-w.shape[0] // (CHUNKS * many)) * many
    piece = PIECE // y.itemsize
    sums = empty((work * deep * offsets.size,), np.dtype(np.float64))
    convolve_few(
        x.reshape(-1), w.reshape(-1), bias_of(ins, y), y.reshape(-1), empty((pixels * sizes[6],), y.dtype), sums,
        _places(x.shape, w.shape[2:], y.shape[2:], where), rows, offsets, sizes, (many, each), deep, piece, work,
    )  # fmt: skip
    if any(where["padding"]) and not np.isfinite(y).all():
        reference.forward(ins, outs, **where)


def input_grad(ins: list, outs: list, size: tuple, **where: Any) -> None:
    """dx from dy and w."""
    dy, w, dx = volume(ins[0]), volume(ins[1]), outs[0]
    sizes = _sizes(dx.shape, w.shape, dy.shape[2:], dx.itemsize)
    tile, work = strided_shape(dx.itemsize), _work(sizes)
    across, each = -(-sizes[3] * sizes[5] // tile[0]) * tile[0], _each(w.shape, tile[1])
    few_input_grad(
        dy.reshape(-1), w.reshape(-1), bias_of(ins, dx), dx.reshape(-1), empty((sizes[1] * across,), dx.dtype),
        empty((work * across * each * sizes[2],), dx.dtype), _places(dx.shape, w.shape[2:], dy.shape[2:], where), sizes, across,
        tile, each, work,
    )  # fmt: skip


def _each(w: tuple, columns: int) -> int:
    """Input channels of a chunk: whole tiles of taps, as many as there are chunks for."""
    least = columns // gcd(columns, prod(w[2:]))
    return min(w[1], max(1, w[1] // (CHUNKS * least)) * least)


def weight_grad(ins: list, outs: list, size: tuple, **where: Any) -> None:
    """dw from x and dy. By the definition where cotangents that are not finite met padding."""
    x, dy, dw = volume(ins[0]), volume(ins[1]), outs[0]
    sizes = _sizes(x.shape, dw.shape, dy.shape[2:], dw.itemsize)
    tile, pixels, work = strided_shape(dw.itemsize), sizes[3] * sizes[5], _work(sizes)
    few_weight_grad(
        x.reshape(-1), dy.reshape(-1), dw.reshape(-1), empty((-(-sizes[1] // tile[0]) * tile[0] * pixels,), dw.dtype),
        empty((pixels * sizes[6],), dw.dtype), empty((work * tile[0] * tile[1],), dw.dtype),
        _places(x.shape, size, dy.shape[2:], where), sizes, tile, max(1, -(-sizes[1] // tile[0]) // CHUNKS), work,
    )  # fmt: skip
    reference.mend_weight_grad(ins, outs, size=size, **where)


def _applies(
    most: int, numbers: int, pixels: int, outputs: int, inputs: int, taps: int, groups: int, itemsize: int
) -> bool:
    """Few pixels, and weights that fill tiles. Of images whose numbers few taps share, ``most`` pixels of ``numbers`` may be."""
    whole = inputs * taps >= strided_shape(itemsize)[1] and outputs * inputs * taps >= WEIGHTS
    apart = pixels * inputs * taps <= SHARED * numbers
    return groups == 1 and whole and 0 < pixels <= (max(PIXELS, most) if apart else PIXELS)


def applies(ins: list, groups: int, stride: tuple, padding: tuple, dilation: tuple) -> bool:
    """To outputs."""
    (n, channels, *size), (outputs, _, *kernel), itemsize = ins[0].shape, ins[1].shape, ins[0].dtype.itemsize
    out = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    numbers = prod(ins[0].shape)
    return numbers > 0 and _applies(APART[0], numbers, n * prod(out), outputs, channels, prod(kernel), groups, itemsize)


def applies_to_input_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    """To gradients of inputs, from dy and w."""
    (n, outputs, *out), (_, channels, *kernel), itemsize = ins[0].shape, ins[1].shape, ins[0].dtype.itemsize
    numbers = n * channels * prod(size)
    return numbers > 0 and _applies(APART[1], numbers, n * prod(out), outputs, channels, prod(kernel), groups, itemsize)


def applies_to_weight_grad(ins: list, groups: int, size: tuple, **where: Any) -> bool:
    """To gradients of weights, from x and dy."""
    (n, channels), (_, outputs, *out), itemsize = ins[0].shape[:2], ins[1].shape, ins[0].dtype.itemsize
    numbers, taps = prod(ins[0].shape), channels * prod(size)
    most = min(APART[2], UNFOLDED // (taps * itemsize)) if taps else 0
    return numbers > 0 and _applies(most, numbers, n * prod(out), outputs, channels, prod(size), groups, itemsize)
