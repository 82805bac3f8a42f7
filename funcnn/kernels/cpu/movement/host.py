"""How elements are moved on the CPU by NumPy: parts joined, reversed, set into a frame, a slice or a diagonal, converted."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.movement import regions
from funcnn.kernels.implementation import NUMPY, host

CONVERTS = "NumPy has a loop for each pair of dtypes"


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
    """The slice of an array in its memory, an array also where there is no axis."""
    return x[tuple(map(slice, starts, stops, steps)) or ...]


def _slice_place(ins: list, outs: list, shape: tuple, **where: Any) -> None:
    outs[0].fill(0)
    sliced(outs[0], **where)[...] = ins[0]


def _slice_put(ins: list, outs: list, **where: Any) -> None:
    np.copyto(outs[0], ins[0])
    sliced(outs[0], **where)[...] = ins[1]


def diagonal_length(rows: int, columns: int, offset: int) -> int:
    """How many elements a diagonal has."""
    return max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))


def on_diagonal(x: np.ndarray, offset: int) -> np.ndarray:
    """The diagonals of the last two dimensions in the memory of ``x``."""
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
