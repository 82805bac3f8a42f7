"""Sorting and selection along one dimension; NaN counts as the largest."""

from __future__ import annotations

from operator import index
from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce import sorting
from funcnn.ops.base import costs
from funcnn.ops.base.dims import normalize_dim
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.reduction import ValuesIndices, dropped
from funcnn.ops.indexing.along import gather
from funcnn.ops.movement.views import clone, reshape, slice_dim
from funcnn.ops.tensor.creation import zeros

argsort_p = Primitive(
    "argsort",
    shape=lambda x, dim, descending: (Aval(tuple(x.shape), dtypes.int64),),
    cpu=sorting.ORDER,
    batch=lambda n, ins, batched, dim, descending: argsort_p(ins[0], dim=dim + 1, descending=descending),
    flops=costs.sorting,
)


def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that sort along ``dim``; equal elements keep their order."""
    x = to_tensor(input)
    dim = normalize_dim("argsort", dim, x.ndim)
    return (
        zeros((), dtype=dtypes.int64, device=x.device)
        if x.ndim == 0
        else argsort_p(x, dim=dim, descending=bool(descending))
    )


def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesIndices:
    """``(values, indices)`` sorted along ``dim``; equal elements keep their order."""
    x = to_tensor(input)
    order = argsort(x, dim, descending)
    return ValuesIndices(clone(x) if x.ndim == 0 else gather(x, dim, order), order)


topk_p = Primitive(
    "topk",
    shape=lambda x, dim, k, largest: (Aval((*x.shape[:dim], k, *x.shape[dim + 1 :]), dtypes.int64),),
    cpu=sorting.TOP,
    batch=lambda n, ins, batched, dim, k, largest: topk_p(ins[0], dim=dim + 1, k=k, largest=largest),
    keeps="",
    flops=costs.each(1),
)


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """``(values, indices)`` of the ``k`` largest (or smallest) along ``dim``, in order."""
    x = to_tensor(input)
    dim = normalize_dim("topk", dim, x.ndim)
    if x.ndim == 0:
        return ValuesIndices(clone(x), argsort(x))
    try:
        k = index(k)
    except TypeError:
        raise DTypeError(f"topk: k must be an int, got {k!r}") from None
    if not 0 <= k <= x._v.shape[dim]:
        raise ShapeError(f"topk: k={k} is out of range for dimension {dim} of size {x._v.shape[dim]}")
    order = topk_p(x, dim=dim, k=k, largest=bool(largest))
    return ValuesIndices(gather(x, dim, order), order)


def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """``(values, indices)`` of the ``k``-th smallest (from 1) along ``dim``."""
    x = to_tensor(input)
    dim = normalize_dim("kthvalue", dim, x.ndim)
    if x.ndim == 0:
        return ValuesIndices(clone(x), argsort(x))
    if not 1 <= k <= x._v.shape[dim]:
        raise ShapeError(f"kthvalue: k={k} is out of range for dimension {dim} of size {x._v.shape[dim]}")
    order = slice_dim(argsort(x, dim), dim, k - 1, k)
    values = gather(x, dim, order)
    if keepdim:
        return ValuesIndices(values, order)
    shape = dropped(tuple(x._v.shape), (dim,))
    return ValuesIndices(reshape(values, shape), reshape(order, shape))
