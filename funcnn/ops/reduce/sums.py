"""Reductions: sums, means, truth and counts. ``dim`` is None (all), an int or several; ``keepdim`` keeps 1s."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import functions
from funcnn.kernels.cpu.reduce import runs as kernels
from funcnn.kernels.cpu.reduce.launch import blocked_sum, by_kernel
from funcnn.ops.base.declare import unary
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.reduction import all_if_empty, reduction
from funcnn.ops.base.structure import cast, reduce, spread, sum_p
from funcnn.ops.elementwise.arithmetic import mul, true_divide
from funcnn.ops.elementwise.comparison import eq, ne


def sum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim``; bools and integers add up as int64."""
    x = to_tensor(input)
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    elif x._v.dtype.kind != "f":
        x = cast(x, dtypes.int64)
    return reduce(sum_p, x, all_if_empty(dim), keepdim)


def _mean(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    blocked_sum(x, axes, out)
    np.divide(out, x.size // max(out.size, 1), out=out)


def _mean_vjp(g: Tensor, ins: list, o: Tensor, axes: tuple) -> tuple:
    shape = ins[0]._v.shape
    return (spread(true_divide(g, max(numel(tuple(shape[a] for a in axes)), 1)), shape, axes),)


mean_p = reduction("mean", _mean, _mean_vjp, keeps="", fast=by_kernel(kernels.sums, mean=True))


def mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The arithmetic mean over ``dim``. Raises ``DTypeError`` for integers."""
    x = to_tensor(input)
    x = require_floating("mean", x if dtype is None else cast(x, dtypes.as_dtype(dtype)))
    if x._v.dtype == dtypes.float16:  # whose sum could overflow
        return cast(mean(cast(x, dtypes.float32), dim, keepdim), dtypes.float16)
    return reduce(mean_p, x, all_if_empty(dim), keepdim)


_without_nan = unary(
    "without_nan",
    functions.without_nan,
    lambda g, x, o: mul(g, cast(eq(x, x), x._v.dtype)),  # a product: the share of nothing, 0 / 0, stays NaN
    "NaN replaced by 0.",
    numpy=lambda x, out: np.copyto(out, np.where(x == x, x, 0)),
    method=False,
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
