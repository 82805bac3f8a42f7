"""Reductions: sums, means, extrema, truth, norms. ``dim`` is None (all), an int or several; ``keepdim`` keeps 1s."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Implementation, Primitive
from funcnn.core.tensor import Tensor, constant
from funcnn.kernels.cpu import reduce as kernels
from funcnn.ops.common import all_batched, cast, floating, normalize_dim, normalize_dims, numel, to_tensor
from funcnn.ops.creation import ones_like, require_floating
from funcnn.ops.declare import unary
from funcnn.ops.elementwise import abs as abs_
from funcnn.ops.elementwise import (
    add,
    clone,
    eq,
    gt,
    isnan,
    maximum,
    minimum,
    mul,
    ne,
    sub,
    true_divide,
    where,
)
from funcnn.ops.logsumexp import logsumexp_p
from funcnn.ops.math import log, pow, sqrt
from funcnn.ops.moments import zero_safe
from funcnn.ops.movement import permute_p, reshape, reshape_p, slice_dim
from funcnn.ops.reduce_cpu import by_kernel, pays, plain_extremum, spread_extremum, sum_of_squares
from funcnn.ops.reduction import MinMax, ValuesIndices, all_if_empty, blocked_sum, dropped, reduce, reduction, spread
from funcnn.ops.reduction import kept as kept

# ---- sums and products ------------------------------------------------------------------------------------------------
sum_p = reduction(
    "sum",
    blocked_sum,
    lambda g, ins, o, axes: (spread(g, ins[0]._v.shape, axes),),
    keeps="",
    fast=by_kernel(kernels.sums),
)


def sum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim``; bools and integers add up as int64."""
    x = to_tensor(input)
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    elif x._v.dtype.kind != "f":
        x = cast(x, dtypes.int64)
    return reduce(sum_p, x, all_if_empty(dim), keepdim)


def _count(x: Tensor, dim: Any, name: str) -> int:
    return numel(tuple(x._v.shape[a] for a in normalize_dims(name, dim, x.ndim)))


def _mean(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    blocked_sum(x, axes, out)
    np.divide(out, x.size // builtins.max(out.size, 1), out=out)


def _mean_vjp(g: Tensor, ins: list, o: Tensor, axes: tuple) -> tuple:
    shape = ins[0]._v.shape
    return (spread(true_divide(g, builtins.max(numel(tuple(shape[a] for a in axes)), 1)), shape, axes),)


mean_p = reduction("mean", _mean, _mean_vjp, keeps="", fast=by_kernel(kernels.sums, mean=True))


def mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The arithmetic mean over ``dim``. Raises ``DTypeError`` for integers."""
    x = to_tensor(input)
    x = require_floating("mean", x if dtype is None else cast(x, dtypes.as_dtype(dtype)))
    if x._v.dtype == dtypes.float16:  # whose sum could overflow
        return cast(mean(cast(x, dtypes.float32), dim, keepdim), dtypes.float16)
    return reduce(mean_p, x, all_if_empty(dim), keepdim)


def _prod_vjp(g: Tensor, ins: list, o: Tensor, axes: tuple) -> tuple:
    """The product of all other elements: products from the left times products from the right, right also at zeros."""
    from funcnn.ops.join import cat, flip
    from funcnn.ops.scan import cumprod

    x = ins[0]
    shape = tuple(x._v.shape)
    rest = dropped(shape, axes)
    lead = tuple(i for i in range(len(shape)) if i not in axes)
    order = (*lead, *axes)
    count = numel(tuple(shape[a] for a in axes))
    rows = reshape_p(permute_p(x, dims=order), shape=(*rest, count))
    if count == 0:
        return (x,)
    last = len(rest)
    edge = ones_like(slice_dim(rows, last, 0, 1))
    left = cat([edge, slice_dim(cumprod(rows, last), last, 0, count - 1)], last)
    back = flip(rows, (last,))
    right = flip(cat([edge, slice_dim(cumprod(back, last), last, 0, count - 1)], last), (last,))
    others = mul(mul(left, right), reshape_p(g, shape=(*rest, 1)))
    wide = reshape_p(others, shape=tuple(shape[d] for d in order))
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    return (permute_p(wide, dims=inverse),)


prod_p = reduction(
    "prod",
    lambda x, axes, out: np.prod(x, axis=axes, out=out),
    _prod_vjp,
    keeps="i",
    fast=by_kernel(kernels.products),
)


def prod(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over ``dim``; bools and integers multiply as int64."""
    x = to_tensor(input)
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    elif x._v.dtype.kind != "f":
        x = cast(x, dtypes.int64)
    return reduce(prod_p, x, dim, keepdim)


_without_nan = unary(
    "without_nan",
    lambda x, out: np.copyto(out, np.where(x == x, x, 0)),
    lambda g, x, o: mul(g, cast(eq(x, x), x._v.dtype)),  # a product: the share of nothing, 0 / 0, stays NaN
    "NaN replaced by 0.",
)


def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim``, NaN counting as 0."""
    x = to_tensor(input)
    return sum(_without_nan(x) if x._v.dtype.kind == "f" else x, dim, keepdim, dtype=dtype)


def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim`` of what is not NaN."""
    x, dim = require_floating("nanmean", to_tensor(input)), all_if_empty(dim)
    x = x if dtype is None else cast(x, dtypes.as_dtype(dtype))
    present = cast(eq(x, x), x._v.dtype)
    return true_divide(nansum(x, dim, keepdim), sum(present, dim, keepdim))


# ---- extrema ----------------------------------------------------------------------------------------------------------
def _extremum_vjp(g: Tensor, ins: list, o: Tensor, axes: tuple) -> tuple:
    """The cotangent shared evenly among the elements that equal the extremum (NaN equal to NaN)."""
    return (extremum_grad_p(g, ins[0], o, axes=axes, spoilt=False),)


def _slice_extremum_vjp(g: Tensor, ins: list, o: Tensor, axes: tuple) -> tuple:
    """Likewise, but NaN where the extremum is: in PyTorch no element of a slice equals its NaN."""
    return (extremum_grad_p(g, ins[0], o, axes=axes, spoilt=True),)


def _extremum_grad_vjp(c: Tensor, ins: list, o: Tensor, axes: tuple, spoilt: bool) -> tuple:
    g, x, top = ins  # linear in g
    shares = {"axes": axes, "spoilt": spoilt}
    return (lambda: sum_p(mul(c, extremum_grad_p(ones_like(g), x, top, **shares)), axes=axes), None, None)


extremum_grad_p = Primitive(
    "extremum_grad",
    shape=lambda g, x, top, axes, spoilt: (x,),
    cpu=(
        Implementation(spread_extremum, lambda ins, axes, spoilt: ins[1].flags.c_contiguous and pays(ins[1:], axes)),
        Implementation(plain_extremum),
    ),
    vjp=_extremum_grad_vjp,
    batch=lambda n, ins, batched, axes, spoilt: extremum_grad_p(
        *all_batched(n, ins, batched), axes=tuple(a + 1 for a in axes), spoilt=spoilt
    ),
)


def _extreme(name: str, function: np.ufunc, sign: float, vjp: Callable) -> Primitive:
    def run(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
        function.reduce(x, axes, out=out)

    return reduction(name, run, vjp, "io", empty=False, fast=by_kernel(kernels.largest, sign))


amax_p = _extreme("amax", np.maximum, 1.0, _slice_extremum_vjp)
amin_p = _extreme("amin", np.minimum, -1.0, _slice_extremum_vjp)
max_p, min_p = _extreme("max", np.maximum, 1.0, _extremum_vjp), _extreme("min", np.minimum, -1.0, _extremum_vjp)


def amax(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The largest over ``dim``; NaN wins; ties share the gradient."""
    return reduce(amax_p, to_tensor(input), all_if_empty(dim), keepdim)


def amin(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The smallest over ``dim``; NaN wins; ties share the gradient."""
    return reduce(amin_p, to_tensor(input), all_if_empty(dim), keepdim)


def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """``(min, max)`` over ``dim``."""
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _arg(name: str, loop: Callable) -> Primitive:
    def run(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
        out[...] = loop(x, axis=axes[0])

    return reduction(name, run, None, "", dtype=dtypes.int64, empty=False)


argmax_p, argmin_p = _arg("argmax", np.argmax), _arg("argmin", np.argmin)


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
    """Where the largest is along ``dim``, or in the flattened tensor; the first of equals; NaN wins."""
    return _argument(argmax_p, input, dim, keepdim)


def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the smallest is along ``dim``, or in the flattened tensor; the first of equals; NaN wins."""
    return _argument(argmin_p, input, dim, keepdim)


def _pick(x: Tensor, dim: int, at: Tensor, keepdim: bool) -> ValuesIndices:
    """The values at the indices ``at``, which have size 1 along ``dim``."""
    from funcnn.ops.index import gather

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
    """The largest of all; with ``dim``: ``(values, indices)`` along it; with a tensor: the elementwise maximum."""
    return _extremum(input, dim, keepdim, argmax_p, max_p, maximum)


def min(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest of all; with ``dim``: ``(values, indices)`` along it; with a tensor: the elementwise minimum."""
    return _extremum(input, dim, keepdim, argmin_p, min_p, minimum)


def _median(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    count = numel(tuple(x.shape[a] for a in axes))
    rows = np.moveaxis(x, axes, range(-len(axes), 0)).reshape(*out.shape, count)
    middle = (count - 1) // 2
    out[...] = np.partition(rows, middle, -1)[..., middle]
    if x.dtype.kind == "f":
        out[np.isnan(rows).any(-1)] = np.nan


median_p = reduction("median", _median, _extremum_vjp, "io", empty=False)


def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all, sharing the gradient among equals; with ``dim``: ``(values, indices)``. NaN wins."""
    from funcnn.ops.index import gather
    from funcnn.ops.sort import argsort

    x = to_tensor(input)
    if dim is None and not x._v.size:
        nothing = math.nan if x._v.dtype.kind == "f" else np.iinfo(x._v.dtype).min
        return add(sum(x, dtype=x._v.dtype), nothing)
    if dim is None:
        return reduce(median_p, x, None, False)
    dim = normalize_dim("median", dim, x.ndim)
    if x.ndim == 0:
        return ValuesIndices(clone(x), argmax(x))
    size = x._v.shape[dim]
    if size == 0:
        raise IndexError(f"median: cannot reduce dimension {dim} of shape {tuple(x.shape)}: there is no element")
    nans = sum(isnan(x), dim, True)  # sorted to the end; the first of them is the result where there is one
    middle = where(gt(nans, 0), sub(size, nans), (size - 1) // 2)
    return _pick(x, dim, gather(argsort(x, dim), dim, middle), keepdim)


# ---- truth and counts -------------------------------------------------------------------------------------------------
any_p = reduction("any", lambda x, axes, out: np.any(x, axis=axes, out=out), None, "", dtype=dtypes.bool_)
all_p = reduction("all", lambda x, axes, out: np.all(x, axis=axes, out=out), None, "", dtype=dtypes.bool_)


def _truth(prim: Primitive, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    out = reduce(prim, x, dim, keepdim)
    return cast(out, dtypes.uint8) if x._v.dtype == dtypes.uint8 else out


def any(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether some element over ``dim`` is true (non-zero); uint8 stays uint8."""
    return _truth(any_p, to_tensor(input), dim, keepdim)


def all(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether every element over ``dim`` is true (non-zero); uint8 stays uint8."""
    return _truth(all_p, to_tensor(input), dim, keepdim)


def count_nonzero(input: Any, dim: Any = None) -> Tensor:
    """How many elements over ``dim`` are not zero, as int64."""
    return sum(ne(input, 0), dim)


# ---- logsumexp and norms ----------------------------------------------------------------------------------------------
def logsumexp(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """``log(sum(exp(input)))`` over ``dim`` without overflow."""
    x = floating(input)
    axes = normalize_dims("logsumexp", dim, x.ndim)
    if not axes:
        return mul(x, 1.0)
    if not _count(x, axes, "logsumexp"):
        return log(reduce(sum_p, x, axes, keepdim))
    half = x._v.dtype.itemsize < 4
    wide = cast(x, dtypes.float32) if half else x
    kept_axes = tuple(axis for axis in range(x.ndim) if axis not in axes)
    first = axes[0]
    if axes[-1] - first >= len(axes):  # not side by side
        wide, first = permute_p(wide, dims=(*kept_axes, *axes)), len(kept_axes)
    shape = tuple(wide._v.shape)
    rows = (*shape[:first], _count(x, axes, "logsumexp"), *shape[first + len(axes) :])
    out = logsumexp_p(wide if len(axes) == 1 else reshape_p(wide, shape=rows), dim=first)
    out = cast(out, x._v.dtype) if half else out
    return reshape_p(out, shape=kept(tuple(x._v.shape), axes)) if keepdim else out


sum_of_squares_p = reduction(
    "sum_of_squares",
    lambda x, axes, out: blocked_sum(np.square(x), axes, out),
    lambda g, ins, o, axes: (mul(ins[0], spread(mul(g, 2.0), ins[0]._v.shape, axes)),),
    keeps="i",
    fast=Implementation(sum_of_squares, pays),
)


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm over ``dim``: ``sum(|x| ** p) ** (1 / p)``; "fro" is 2; inf and -inf are extrema; 0 counts non-zeros."""
    x = to_tensor(input)
    x = require_floating("norm", x if dtype is None else cast(x, dtypes.as_dtype(dtype)))
    if x._v.dtype == dtypes.float16:  # whose powers could overflow
        return cast(norm(cast(x, dtypes.float32), p, dim, keepdim), dtypes.float16)
    p = 2 if p is None or p == "fro" else p
    if not isinstance(p, (int, float)):
        raise DTypeError(f"norm: p must be a number or 'fro', got {p!r}")
    if p in (math.inf, -math.inf):
        return (amax if p > 0 else amin)(abs_(x), dim, keepdim)
    if p == 0:
        return sum(
            where(ne(x, 0.0), constant(np.ones((), x._v.dtype)), mul(x, 0.0)), dim, keepdim
        )  # with a derivative: 0
    if p == 1:
        return sum(abs_(x), dim, keepdim)
    if p == 2:
        return zero_safe(sqrt, reduce(sum_of_squares_p, x, all_if_empty(dim), keepdim))
    if p < 0 and not _count(x, all_if_empty(dim), "norm"):
        raise IndexError(f"norm: p={p} is not defined for no elements, got shape {tuple(x.shape)}")
    at_zero = 0.0 if p > 0 else math.inf
    total = sum(zero_safe(lambda t: pow(t, p), abs_(x), at_zero), dim, keepdim)
    return zero_safe(lambda t: pow(t, 1.0 / p), total, at_zero)


def trace(input: Any) -> Tensor:
    """The sum of a matrix's diagonal. Raises ``ShapeError`` for other than two dimensions."""
    from funcnn.ops.triangle import diagonal

    x = to_tensor(input)
    if x.ndim != 2:
        raise ShapeError(f"trace: expected a matrix, got shape {tuple(x.shape)}; use diagonal(...).sum(-1) for batches")
    return sum(diagonal(x))
