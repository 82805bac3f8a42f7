"""Sorting and selection along one dimension; NaN counts as the largest."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.ops.common import cast, normalize_dim, to_tensor
from funcnn.ops.elementwise import mul
from funcnn.ops.index import gather
from funcnn.ops.movement import reshape, slice_dim
from funcnn.ops.reduce import ValuesIndices, dropped


def _argsort(ins: list, outs: list, dim: int, descending: bool) -> None:
    x = ins[0]
    if descending:
        x = np.flip(x, dim)
    order = np.argsort(x, axis=dim, kind="stable")
    outs[0][...] = np.flip(x.shape[dim] - 1 - order, dim) if descending else order


argsort_p = Primitive(
    "argsort",
    shape=lambda x, dim, descending: (Aval(tuple(x.shape), dtypes.int64),),
    cpu=_argsort,
    batch=lambda n, ins, batched, dim, descending: argsort_p(ins[0], dim=dim + 1, descending=descending),
)


def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that sort along ``dim``; equal elements keep their order."""
    x = to_tensor(input)
    dim = normalize_dim("argsort", dim, x.ndim)
    return cast(mul(x, 0), dtypes.int64) if x.ndim == 0 else argsort_p(x, dim=dim, descending=bool(descending))


def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesIndices:
    """``(values, indices)`` sorted along ``dim``; equal elements keep their order."""
    x = to_tensor(input)
    order = argsort(x, dim, descending)
    return ValuesIndices(x if x.ndim == 0 else gather(x, dim, order), order)


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """``(values, indices)`` of the ``k`` largest (or smallest) along ``dim``, in order."""
    x = to_tensor(input)
    dim = normalize_dim("topk", dim, x.ndim)
    if x.ndim == 0:
        return ValuesIndices(x, argsort(x))
    if not 0 <= k <= x._v.shape[dim]:
        raise ShapeError(f"topk: k={k} is out of range for dimension {dim} of size {x._v.shape[dim]}")
    order = slice_dim(argsort(x, dim, largest), dim, 0, k)
    return ValuesIndices(gather(x, dim, order), order)


def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """``(values, indices)`` of the ``k``-th smallest (from 1) along ``dim``."""
    x = to_tensor(input)
    dim = normalize_dim("kthvalue", dim, x.ndim)
    if x.ndim == 0:
        return ValuesIndices(x, argsort(x))
    if not 1 <= k <= x._v.shape[dim]:
        raise ShapeError(f"kthvalue: k={k} is out of range for dimension {dim} of size {x._v.shape[dim]}")
    order = slice_dim(argsort(x, dim), dim, k - 1, k)
    values = gather(x, dim, order)
    if keepdim:
        return ValuesIndices(values, order)
    shape = dropped(tuple(x._v.shape), (dim,))
    return ValuesIndices(reshape(values, shape), reshape(order, shape))
