"""How elements are moved on the CPU by NumPy: parts joined, reversed, set into a frame, a slice or a diagonal, converted;
windows seen and added up; tables that follow from sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.movement import regions
from funcnn.kernels.implementation import NUMPY, Implementation, host

CONVERTS = "NumPy has a loop for each pair of dtypes"
TABLE = "its elements follow from sizes alone, along one axis: NumPy makes them once"


def _cat(ins: list, outs: list, dim: int) -> None:
    np.concatenate(ins, axis=dim, out=outs[0])


def _flip(ins: list, outs: list, dims: tuple[int, ...]) -> None:
    np.copyto(outs[0], np.flip(ins[0], dims))


def _pad(ins: list, outs: list, widths: tuple, value: float) -> None:
    outs[0].fill(value)
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(ins[0].shape, widths, strict=True))
    outs[0][inside] = ins[0]


# ---- slices and diagonals -----------------------------------------------------------------------------------------------
def sliced(x: np.ndarray, starts: tuple, stops: tuple, steps: tuple) -> np.ndarray:
    """Returns the slice of an array in its memory, an array also where there is no axis."""
    return x[tuple(map(slice, starts, stops, steps)) or ...]


def _slice_place(ins: list, outs: list, shape: tuple, **section: Any) -> None:
    outs[0].fill(0)
    sliced(outs[0], **section)[...] = ins[0]


def _slice_put(ins: list, outs: list, **section: Any) -> None:
    np.copyto(outs[0], ins[0])
    sliced(outs[0], **section)[...] = ins[1]


def diagonal_length(rows: int, columns: int, offset: int) -> int:
    """Returns how many elements a diagonal has."""
    return max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))


def on_diagonal(x: np.ndarray, offset: int) -> np.ndarray:
    """Returns the diagonals of the last two dimensions in the memory of ``x``."""
    length = diagonal_length(x.shape[-2], x.shape[-1], offset)
    first = x[..., max(-offset, 0) :, max(offset, 0) :] if length else x[..., :0, :0]
    strides = (*x.strides[:-2], x.strides[-2] + x.strides[-1])
    shape = (*x.shape[:-2], length)
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=x.flags.writeable)


def _diagonal_put(ins: list, outs: list, offset: int) -> None:
    np.copyto(outs[0], ins[0])
    np.copyto(on_diagonal(outs[0], offset), ins[1])


def _cast(ins: list, outs: list, dtype: np.dtype) -> None:
    np.copyto(outs[0], ins[0], casting="unsafe")


# ---- windows along one axis ---------------------------------------------------------------------------------------------
def windowed_shape(shape: tuple, dim: int, size: int, step: int) -> tuple[int, ...]:
    """Returns the shape of all windows of a size, ``step`` apart."""
    return (*shape[:dim], (shape[dim] - size) // step + 1, *shape[dim + 1 :], size)


def windowed(x: np.ndarray, dim: int, size: int, step: int) -> np.ndarray:
    """Returns the windows in the memory of ``x``; where they overlap they may not be written."""
    strides = (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :], x.strides[dim])
    shape = windowed_shape(x.shape, dim, size, step)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=x.flags.writeable and step >= size)


def _windows_sum(ins: list, outs: list, dim: int, step: int, length: int) -> None:
    g, out = ins[0], outs[0]
    out[...] = 0
    lead = (slice(None),) * dim
    count = g.shape[dim]
    for k in range(g.shape[-1]):
        out[(*lead, slice(k, k + (count - 1) * step + 1, step))] += g[..., k]


# ---- tables -------------------------------------------------------------------------------------------------------------
def windows_hold(length: int, size: int, step: int) -> np.ndarray:
    """Returns for each index whether some window holds it."""
    held = np.zeros(length, bool)
    for start in range(0, length - size + 1, step):
        held[start : start + size] = True
    return held


def pad_sources(mode: str, size: int, before: int, after: int) -> np.ndarray:
    """Returns for each index of a padded axis the one that it is copied from."""
    index = np.arange(-before, size + after)
    if mode == "replicate":
        return np.clip(index, 0, size - 1)
    if mode == "circular":
        return index % size
    return size - 1 - np.abs(size - 1 - np.abs(index))


def table(make: Callable[..., np.ndarray]) -> tuple[Implementation, ...]:
    """The implementation of a primitive without inputs, whose elements a function makes of its parameters."""
    return (host("numpy", lambda ins, outs, **params: np.copyto(outs[0], make(**params)), TABLE),)


CAT, FLIP, PAD, SLICE_PLACE, SLICE_PUT, DIAGONAL_PUT = (
    (kernel, host("numpy", run, NUMPY))
    for kernel, run in (
        (regions.CAT, _cat),
        (regions.FLIP, _flip),
        (regions.PAD, _pad),
        (regions.SLICE_PLACE, _slice_place),
        (regions.SLICE_PUT, _slice_put),
        (regions.DIAGONAL_PUT, _diagonal_put),
    )
)
CAST = (host("numpy", _cast, CONVERTS),)
WINDOWS_SUM = (
    host("numpy", _windows_sum, "windows along any axis have no kernel yet: NumPy adds one tap of all at a time"),
)
ZEROS = (host("numpy", lambda ins, outs: outs[0].fill(0), "NumPy fills memory as fast as it goes"),)
