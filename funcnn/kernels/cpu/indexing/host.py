"""How elements are picked and put at computed places where no kernel is: NumPy's indexing by arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.implementation import host
from funcnn.kernels.refusal import refuse_outside

PICKS = (
    "an array with gaps, of which few elements are picked: a kernel would copy it first; or an index that is not int64"
)
ADDS = "half precision is added and multiplied by NumPy, which rounds each sum; or an index that is not int64"
OTHER_INDEX = "indices that are neither int32 nor int64 are read by NumPy"


def _mesh(index: np.ndarray, dim: int) -> tuple[Any, ...]:
    """The NumPy index that addresses, at each point of ``index``, that point with coordinate ``dim`` replaced."""
    grid: list[Any] = list(np.ogrid[tuple(slice(0, s) for s in index.shape)])
    grid[dim] = index
    return tuple(grid)


def _each(x: np.ndarray, indices: list, before: int) -> None:
    for dim, index in enumerate(indices):
        refuse_outside(index, -x.shape[dim], x.shape[dim], before + dim)


def _gather(ins: list, outs: list, dim: int) -> None:
    refuse_outside(ins[1], 0, ins[0].shape[dim], 1)
    outs[0][...] = ins[0][_mesh(ins[1], dim)]


def _scatter(ins: list, outs: list, dim: int, mode: str) -> None:
    base, index, src = ins
    refuse_outside(index, 0, base.shape[dim], 1)
    np.copyto(outs[0], base)
    where = _mesh(index, dim)
    if mode == "set":
        outs[0][where] = src
    else:
        (np.add if mode == "add" else np.multiply).at(outs[0], where, src)


def _index(ins: list, outs: list) -> None:
    _each(ins[0], ins[1:], 1)
    outs[0][...] = ins[0][tuple(ins[1:])]


def _index_put(ins: list, outs: list, accumulate: bool) -> None:
    _each(ins[0], ins[2:], 2)
    np.copyto(outs[0], ins[0])
    if accumulate:
        np.add.at(outs[0], tuple(ins[2:]), ins[1])
    else:
        outs[0][tuple(ins[2:])] = ins[1]


def _look_along(ins: list, outs: list, dim: int, mode: str = "") -> None:
    refuse_outside(ins[1], 0, ins[0].shape[dim], 1)


def _look_at(ins: list, outs: list) -> None:
    _each(ins[0], ins[1:], 1)


def _look_put(ins: list, outs: list, accumulate: bool) -> None:
    _each(ins[0], ins[2:], 2)


def _one_hot(ins: list, outs: list, classes: int) -> None:
    _look_at_classes(ins, outs, classes)
    np.equal(ins[0][..., None], np.arange(classes), out=outs[0], casting="unsafe")


def _look_at_classes(ins: list, outs: list, classes: int) -> None:
    refuse_outside(ins[0], 0, classes, 0)


GATHER, INDEX = (host("numpy", run, PICKS) for run in (_gather, _index))
SCATTER, INDEX_PUT = (host("numpy", run, ADDS) for run in (_scatter, _index_put))
LOOK_ALONG, LOOK_AT, LOOK_PUT = (host("numpy", run, OTHER_INDEX) for run in (_look_along, _look_at, _look_put))
ONE_HOT, LOOK_AT_CLASSES = (host("numpy", run, OTHER_INDEX) for run in (_one_hot, _look_at_classes))
