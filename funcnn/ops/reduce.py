"""Reductions: sums, means, moments, extrema, truth, norms. ``dim`` is None (all), an int or several; ``keepdim`` keeps 1s."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.ops.common import cast, floating, normalize_dim, normalize_dims, numel, to_tensor
from funcnn.ops.creation import ones_like, require_floating
from funcnn.ops.elementwise import abs as abs_
from funcnn.ops.elementwise import eq, isfinite, isnan, logical_or, mul, ne, square, sub, true_divide, where
from funcnn.ops.math import exp, log, pow, sqrt
from funcnn.ops.movement import expand_p, permute_p, reshape, reshape_p, slice_dim


class ValuesIndices(NamedTuple):
    """What a reduction along one dimension found, and where."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """The smallest and the largest."""

    min: Tensor
    max: Tensor


def kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with 1 at the reduced axes."""
    return tuple(1 if i in axes else s for i, s in enumerate(shape))


def dropped(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` without the reduced axes."""
    return tuple(s for i, s in enumerate(shape) if i not in axes)


def spread(g: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """A reduced value repeated over the axes it was reduced from: the transpose of a sum."""
    return expand_p(reshape_p(g, shape=kept(shape, axes)), shape=tuple(shape))


def _reduction(
    name: str, loop: Callable, vjp: Callable | None, keeps: str, dtype: Any = None, empty: bool = True
) -> Primitive:
    """A primitive reducing over ``axes``. ``loop(array, axes, out)``; ``empty``: defined for no elements at all."""

    def shape(x: Any, axes: tuple) -> tuple:
        if not empty and builtins.any(x.shape[a] == 0 for a in axes):
            raise IndexError(
                f"{name}: cannot reduce dimension(s) {axes} of shape {tuple(x.shape)}: there is no element"
            )
        return (Aval(dropped(tuple(x.shape), axes), dtype or x.dtype),)

    prim = Primitive(
        name,
        shape,
        cpu=lambda ins, outs, axes: loop(ins[0], axes, outs[0]),
        vjp=vjp,
        batch=lambda n, ins, batched, axes: prim(ins[0], axes=tuple(a + 1 for a in axes)),
        keeps=keeps,
    )
    return prim


def reduce(prim: Primitive, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Apply a reduction primitive in PyTorch's terms."""
    axes = normalize_dims(prim.name, dim, x.ndim)
    out = prim(x, axes=axes) if axes else prim(x, axes=())
    return reshape_p(out, shape=kept(tuple(x._v.shape), axes)) if keepdim and axes else out


# ---- sums and products ------------------------------------------------------------------------------------------------
sum_p = _reduction(
    "sum",
    lambda x, axes, out: np.sum(x, axis=axes, out=out),
    lambda g, ins, o, axes: (spread(g, ins[0]._v.shape, axes),),
    keeps="",
)


def sum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim``; bools and integers add up as int64."""
    x = to_tensor(input)
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    elif x._v.dtype.kind != "f":
        x = cast(x, dtypes.int64)
    return reduce(sum_p, x, () if dim == () else dim, keepdim)


def _count(x: Tensor, dim: Any, name: str) -> int:
    return numel(tuple(x._v.shape[a] for a in normalize_dims(name, dim, x.ndim)))


def mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The arithmetic mean over ``dim``. Raises ``DTypeError`` for integers."""
    x = to_tensor(input)
    x = require_floating("mean", x if dtype is None else cast(x, dtypes.as_dtype(dtype)))
    count = _count(x, dim, "mean")
    return mul(sum(x, dim, keepdim), 1.0 / count if count else math.nan)


def var(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """The variance over ``dim``: squared deviations from the mean over ``count - correction`` (default 1)."""
    return var_mean(input, dim, unbiased, keepdim, correction=correction)[0]


def std(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """The square root of ``var``."""
    return sqrt(var(input, dim, unbiased, keepdim, correction=correction))


def var_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """``(var, mean)`` in two passes, stable for a large mean."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    x = require_floating("var", to_tensor(input))
    correction = (0 if unbiased is False else 1) if correction is None else correction
    axes = normalize_dims("var", dim, x.ndim)
    center = mean(x, axes or None, True) if x.ndim else x
    total = sum(square(sub(x, center)), axes or None, keepdim)
    freedom = _count(x, axes or None, "var") - correction
    scaled = mul(total, 1.0 / freedom) if freedom > 0 else true_divide(total, 0.0)
    return scaled, reshape_p(center, shape=tuple(scaled._v.shape))


def std_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """``(std, mean)``."""
    v, m = var_mean(input, dim, unbiased, keepdim, correction=correction)
    return sqrt(v), m


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


prod_p = _reduction("prod", lambda x, axes, out: np.prod(x, axis=axes, out=out), _prod_vjp, keeps="i")


def prod(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over ``dim``; bools and integers multiply as int64."""
    x = to_tensor(input)
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    elif x._v.dtype.kind != "f":
        x = cast(x, dtypes.int64)
    return reduce(prod_p, x, dim, keepdim)


def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim``, NaN counting as 0."""
    x = to_tensor(input)
    return sum(where(isnan(x), 0, x), dim, keepdim, dtype=dtype)


def nanmean(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The mean over ``dim`` of what is not NaN."""
    x = require_floating("nanmean", to_tensor(input))
    present = cast(eq(x, x), x._v.dtype)
    return true_divide(nansum(x, dim, keepdim), sum(present, dim, keepdim))


# ---- extrema ----------------------------------------------------------------------------------------------------------
def _extremum_vjp(g: Tensor, ins: list, o: Tensor, axes: tuple) -> tuple:
    """The cotangent shared evenly among the elements that equal the extremum (NaN equal to NaN)."""
    x, shape = ins[0], ins[0]._v.shape
    top = spread(o, shape, axes)
    hit = cast(logical_or(eq(x, top), isnan(x)), x._v.dtype)
    return (mul(hit, spread(true_divide(g, sum_p(hit, axes=axes)), shape, axes)),)


amax_p = _reduction("amax", lambda x, axes, out: np.amax(x, axis=axes, out=out), _extremum_vjp, "io", empty=False)
amin_p = _reduction("amin", lambda x, axes, out: np.amin(x, axis=axes, out=out), _extremum_vjp, "io", empty=False)


def amax(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The largest over ``dim``; NaN wins; ties share the gradient."""
    return reduce(amax_p, to_tensor(input), None if dim == () else dim, keepdim)


def amin(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The smallest over ``dim``; NaN wins; ties share the gradient."""
    return reduce(amin_p, to_tensor(input), None if dim == () else dim, keepdim)


def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """``(min, max)`` over ``dim``."""
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _arg(name: str, loop: Callable) -> Primitive:
    def run(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
        out[...] = loop(x, axis=axes[0])

    return _reduction(name, run, None, "", dtype=dtypes.int64, empty=False)


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


def _extremum(input: Any, dim: Any, keepdim: bool, pair: tuple, whole: Callable) -> Any:
    from funcnn.ops.elementwise import maximum, minimum
    from funcnn.ops.index import gather

    if isinstance(dim, (Tensor, np.ndarray)):
        return (maximum if whole is amax else minimum)(input, dim)
    if dim is None:
        return whole(input)
    x = to_tensor(input)
    if x.ndim == 0:
        return ValuesIndices(x, argmax(x))
    dim = normalize_dim(pair[0].name[3:], dim, x.ndim)
    where_ = reduce(pair[0], x, dim, True)
    values = gather(x, dim, where_)
    if keepdim:
        return ValuesIndices(values, where_)
    shape = dropped(tuple(x._v.shape), (dim,))
    return ValuesIndices(reshape_p(values, shape=shape), reshape_p(where_, shape=shape))


def max(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest of all; with ``dim``: ``(values, indices)`` along it; with a tensor: the elementwise maximum."""
    return _extremum(input, dim, keepdim, (argmax_p,), amax)


def min(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest of all; with ``dim``: ``(values, indices)`` along it; with a tensor: the elementwise minimum."""
    return _extremum(input, dim, keepdim, (argmin_p,), amin)


def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all; with ``dim``: ``(values, indices)`` along it."""
    from funcnn.ops.sort import kthvalue

    x = to_tensor(input)
    if dim is None:
        flat = reshape(x, (x._v.size,))
        return kthvalue(flat, (x._v.size + 1) // 2, 0).values
    return kthvalue(x, (x._v.shape[normalize_dim("median", dim, x.ndim)] + 1) // 2, dim, keepdim)


# ---- truth and counts -------------------------------------------------------------------------------------------------
any_p = _reduction("any", lambda x, axes, out: np.any(x, axis=axes, out=out), None, "", dtype=dtypes.bool_)
all_p = _reduction("all", lambda x, axes, out: np.all(x, axis=axes, out=out), None, "", dtype=dtypes.bool_)


def any(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether some element over ``dim`` is true (non-zero)."""
    return reduce(any_p, to_tensor(input), dim, keepdim)


def all(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether every element over ``dim`` is true (non-zero)."""
    return reduce(all_p, to_tensor(input), dim, keepdim)


def count_nonzero(input: Any, dim: Any = None) -> Tensor:
    """How many elements over ``dim`` are not zero, as int64."""
    return sum(ne(input, 0), dim)


# ---- logsumexp and norms ----------------------------------------------------------------------------------------------
def logsumexp(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """``log(sum(exp(input)))`` over ``dim`` without overflow: the maximum is taken out first."""
    from funcnn.ops.elementwise import add, stop_gradient

    x = floating(input)
    axes = normalize_dims("logsumexp", dim, x.ndim)
    top = stop_gradient(reduce(amax_p, x, axes, True))
    top = where(isfinite(top), top, 0.0)
    total = reduce(sum_p, exp(sub(x, top)), axes, True)
    out = add(log(total), top)
    return out if keepdim else reshape_p(out, shape=dropped(tuple(x._v.shape), axes))


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm over ``dim``: ``sum(|x| ** p) ** (1 / p)``; "fro" is 2; inf and -inf are extrema; 0 counts non-zeros."""
    x = to_tensor(input)
    x = require_floating("norm", x if dtype is None else cast(x, dtypes.as_dtype(dtype)))
    if p == "fro" or p == 2:
        total = sum(square(x), dim, keepdim)
        safe = where(eq(total, 0.0), 1.0, total)
        return where(eq(total, 0.0), 0.0, sqrt(safe))
    if not isinstance(p, (int, float)):
        raise DTypeError(f"norm: p must be a number or 'fro', got {p!r}")
    if p in (math.inf, -math.inf):
        return (amax if p > 0 else amin)(abs_(x), dim, keepdim)
    if p == 0:
        return cast(sum(ne(x, 0.0), dim, keepdim), x._v.dtype)
    if p == 1:
        return sum(abs_(x), dim, keepdim)
    return pow(sum(pow(abs_(x), p), dim, keepdim), 1.0 / p)


def trace(input: Any) -> Tensor:
    """The sum of a matrix's diagonal."""
    from funcnn.ops.movement import diagonal

    return sum(diagonal(input))
