"""Extrema: the largest, the smallest and the median, of all or along a dimension, and where they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce import functions
from funcnn.kernels.cpu.reduce.back_launch import EXTREMUM_GRAD, argument
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import normalize_dim, numel
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.reduction import MinMax, ValuesIndices, dropped, over_axes, reduction_primitive
from funcnn.ops.base.structure import reduce, reshape_p, sum_p
from funcnn.ops.elementwise.arithmetic import add, mul, sub
from funcnn.ops.elementwise.bounds import maximum, minimum
from funcnn.ops.elementwise.comparison import gt, isnan
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.along import gather
from funcnn.ops.indexing.sort import argsort
from funcnn.ops.movement.views import clone, reshape
from funcnn.ops.reduce.declare import reduction
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import ones_like


def _shared(g: Tensor, x: Tensor, o: Tensor, axes: tuple) -> Tensor:
    """Returns the cotangent shared evenly among the elements that equal the extremum (NaN equal to NaN)."""
    return extremum_grad_p(g, x, o, axes=axes, spoilt=False)


def _shared_of_slices(g: Tensor, x: Tensor, o: Tensor, axes: tuple) -> Tensor:
    """Returns the same, but NaN where the extremum is: in PyTorch no element of a slice equals its NaN."""
    return extremum_grad_p(g, x, o, axes=axes, spoilt=True)


def _extremum_grad_vjp(c: Tensor, ins: list, o: Tensor, axes: tuple, spoilt: bool) -> tuple:
    g, x, top = ins  # linear in g
    shares = {"axes": axes, "spoilt": spoilt}
    return (lambda: sum_p(mul(c, extremum_grad_p(ones_like(g), x, top, **shares)), axes=axes), None, None)


extremum_grad_p = Primitive(
    "extremum_grad",
    shape=lambda g, x, top, axes, spoilt: (x,),
    cpu=EXTREMUM_GRAD,
    vjp=_extremum_grad_vjp,
    batch=lambda n, ins, batched, axes, spoilt: extremum_grad_p(
        *all_batched(n, ins, batched), axes=tuple(a + 1 for a in axes), spoilt=spoilt
    ),
    flops=costs.each(2),
)


def _extremes(ufunc: np.ufunc, sign: float) -> dict[str, Any]:
    """Returns what says that an extremum is one: the smallest is the largest of negated elements, negated."""
    return {"numpy": lambda x, axes, out: ufunc.reduce(x, axes, out=out), "param": sign, "wide": False, "empty": False}


_LARGEST, _SMALLEST = _extremes(np.maximum, 1.0), _extremes(np.minimum, -1.0)
amax = reduction(
    "amax", functions.largest, _shared_of_slices, "Returns the largest over ``dim``; NaN wins; ties share the gradient.",
    keeps="io", **_LARGEST,
)  # fmt: skip
amin = reduction(
    "amin", functions.largest, _shared_of_slices, "Returns the smallest over ``dim``; NaN wins; ties share the gradient.",
    keeps="io", **_SMALLEST,
)  # fmt: skip
max_p = reduction_primitive("max", functions.largest, _shared, "io", **_LARGEST)
min_p = reduction_primitive("min", functions.largest, _shared, "io", **_SMALLEST)


def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """Returns ``(min, max)`` over ``dim``."""
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


# An index joins with no other, so these have a kernel of their own.
argmax_p = over_axes(
    "argmax", None, "", argument(1.0), lambda x, axes, out: np.copyto(out, np.argmax(x, axis=axes[0])),
    dtype=dtypes.int64, empty=False,
)  # fmt: skip
argmin_p = over_axes(
    "argmin", None, "", argument(-1.0), lambda x, axes, out: np.copyto(out, np.argmin(x, axis=axes[0])),
    dtype=dtypes.int64, empty=False,
)  # fmt: skip


def _argument(prim: Primitive, input: Any, dim: int | None, keepdim: bool) -> Tensor:
    x = to_tensor(input)
    if dim is None:
        found = prim(reshape(x, (x._v.size,)), axes=(0,))
        return reshape_p(found, shape=(1,) * x.ndim) if keepdim else found
    if x.ndim == 0:
        normalize_dim(prim.name, dim, 0)
        return prim(reshape(x, (1,)), axes=(0,))
    return reduce(prim, x, normalize_dim(prim.name, dim, x.ndim), keepdim)


def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Returns the index of the largest along ``dim``, or in the flattened tensor; the first of equals; NaN wins."""
    return _argument(argmax_p, input, dim, keepdim)


def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Returns the index of the smallest along ``dim``, or in the flattened tensor; the first of equals; NaN wins."""
    return _argument(argmin_p, input, dim, keepdim)


def _pick(x: Tensor, dim: int, at: Tensor, keepdim: bool) -> ValuesIndices:
    """Returns the values at the indices ``at``, which have size 1 along ``dim``."""
    values = gather(x, dim, at)
    if keepdim:
        return ValuesIndices(values, at)
    shape = dropped(tuple(x._v.shape), (dim,))
    return ValuesIndices(reshape_p(values, shape=shape), reshape_p(at, shape=shape))


def _extremum(input: Any, dim: Any, keepdim: bool, place: Primitive, whole: Primitive, pair: Callable) -> Any:
    if isinstance(dim, (Tensor, np.ndarray)):
        return pair(input, dim)
    if dim is None:
        return reduce(whole, to_tensor(input), None, False)
    x = to_tensor(input)
    dim = normalize_dim(place.name[3:], dim, x.ndim)
    if x.ndim == 0:
        return ValuesIndices(clone(x), argmax(x))
    return _pick(x, dim, reduce(place, x, dim, True), keepdim)


def max(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Returns the largest of all; with ``dim``: ``(values, indices)`` along it; with a tensor: the elementwise maximum."""
    return _extremum(input, dim, keepdim, argmax_p, max_p, maximum)


def min(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Returns the smallest of all; with ``dim``: ``(values, indices)`` along it; with a tensor: the elementwise minimum."""
    return _extremum(input, dim, keepdim, argmin_p, min_p, minimum)


def _median(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    count = numel(tuple(x.shape[a] for a in axes))
    rows = np.moveaxis(x, axes, range(-len(axes), 0)).reshape(*out.shape, count)
    middle = (count - 1) // 2
    out[...] = np.partition(rows, middle, -1)[..., middle]
    if x.dtype.kind == "f":
        out[np.isnan(rows).any(-1)] = np.nan


median_p = over_axes(
    "median", _shared, "io", _median, empty=False, reason="a selection, by np.partition, has no kernel"
)


def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Returns the lower median of all, sharing the gradient among equals; with ``dim``: ``(values, indices)``. NaN wins."""
    x = to_tensor(input)
    if dim is None and not x._v.size:
        nothing = math.nan if x._v.dtype.kind == "f" else np.iinfo(x._v.dtype).min
        return add(sum_(x, dtype=x._v.dtype), nothing)
    if dim is None:
        return reduce(median_p, x, None, False)
    dim = normalize_dim("median", dim, x.ndim)
    if x.ndim == 0:
        return ValuesIndices(clone(x), argmax(x))
    size = x._v.shape[dim]
    if size == 0:
        raise IndexError(f"median: cannot reduce dimension {dim} of shape {tuple(x.shape)}: there is no element")
    nans = sum_(isnan(x), dim, True)  # sorted to the end; the first of them is the result where there is one
    middle = where(gt(nans, 0), sub(size, nans), (size - 1) // 2)
    return _pick(x, dim, gather(argsort(x, dim), dim, middle), keepdim)
