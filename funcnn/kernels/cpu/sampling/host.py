"""What of sampling runs on NumPy: images of bytes, and the line of pixel centres that an affine grid begins with.

The weights of an axis of bytes are scaled by the largest power of two for which they stay below 2**15; each axis, the last
one first, is rounded to bytes again: ``(sum(weight * pixel) + half) >> shift``, limited to 0..255, as PyTorch does it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from funcnn.kernels.cpu.sampling.axes import Axis, taps
from funcnn.kernels.implementation import host

MOST_BITS = 22  # of a weight's fraction, and none that makes the largest weight exceed 15 bits


@lru_cache(maxsize=256)
def _whole_weights(axis: Axis) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the first pixel of each output, its taps' weights (taps, outputs) as integers, and how many bits they are shifted by."""
    index, weight = taps(axis, np.float64)
    dense = np.zeros((axis.m, axis.n))
    real = index >= 0
    np.add.at(dense, (np.nonzero(real)[1], index[real]), weight[real])  # pixels beyond the edge count for the edge
    first = np.where(real, index, axis.n).min(0)
    wide = int((np.where(real, index, -1).max(0) - first).max()) + 1
    place = np.minimum(first[None] + np.arange(wide)[:, None], axis.n - 1)
    inside = first[None] + np.arange(wide)[:, None] < axis.n
    picked = np.where(inside, dense[np.arange(axis.m), place], 0.0)
    bits = 0
    while bits < MOST_BITS and int(0.5 + picked.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    scaled = picked * (1 << bits)
    return place, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64), bits


def _along_last(x: np.ndarray, axis: Axis) -> np.ndarray:
    if axis.mode.startswith("nearest"):
        return x[..., taps(axis, np.float32)[0][0]]
    place, weight, bits = _whole_weights(axis)
    total = np.full((*x.shape[:-1], axis.m), 1 << (bits - 1) if bits else 0, np.int64)
    for source, amount in zip(place, weight, strict=True):
        total += x[..., source] * amount
    return np.clip(total >> bits, 0, 255).astype(np.uint8)


def _resize_bytes(ins: list, outs: list, axes: tuple) -> None:
    x = ins[0]
    for dim, axis in reversed(list(enumerate(axes, 2))):
        if axis.n != axis.m or axis.scale:
            x = np.moveaxis(_along_last(np.moveaxis(x, dim, -1), axis), -1, dim)
    np.copyto(outs[0], x)


def pixel_line(size: int, align: bool, dtype: np.dtype) -> np.ndarray:
    """Returns the coordinates of ``size`` pixels in [-1, 1]; align: the outer pixels' centres are the ends."""
    ends = np.linspace(-1, 1, size, dtype=dtype) if size > 1 else np.zeros(1, dtype)
    return ends if align else ends * dtype.type((size - 1) / size)


RESIZE_BYTES = (host("numpy", _resize_bytes, "images of bytes have no kernel yet: NumPy resamples an axis at a time"),)
