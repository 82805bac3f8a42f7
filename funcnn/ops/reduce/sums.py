"""Sums, means, products, truth and counts. ``dim`` is None (all), an int or several; ``keepdim`` keeps 1s."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import functions as elementwise
from funcnn.kernels.cpu.reduce import functions
from funcnn.kernels.cpu.reduce.launch import blocked_sum
from funcnn.ops.base.declare import unary
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.reduction import all_if_empty
from funcnn.ops.base.structure import cast, repeat_over, sum_p
from funcnn.ops.elementwise.arithmetic import mul, true_divide
from funcnn.ops.elementwise.comparison import eq
from funcnn.ops.reduce.declare import FLOAT, WIDE, reduction

sum = reduction(
    "sum", functions.sums, None, "Returns the sum over ``dim``; bools and integers add up as int64.",
    primitive=sum_p, takes=WIDE, casts=True,
)  # fmt: skip


def _mean(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    blocked_sum(x, axes, out)
    np.divide(out, x.size // max(out.size, 1), out=out)


def _mean_grad(g: Tensor, x: Tensor, o: Tensor, axes: tuple) -> Tensor:
    shape = x._v.shape
    return repeat_over(true_divide(g, max(numel(tuple(shape[a] for a in axes)), 1)), shape, axes)


mean = reduction(
    "mean", functions.sums, _mean_grad, "Returns the arithmetic mean over ``dim``. Raises ``DTypeError`` for integers.",
    takes=FLOAT, numpy=_mean, param=float, casts=True, half=False,
)  # fmt: skip


_without_nan = unary(
    "without_nan",
    elementwise.without_nan,
    lambda g, x, o: mul(g, cast(eq(x, x), x._v.dtype)),  # a product: the share of nothing, 0 / 0, stays NaN
    "NaN replaced by 0.",
    numpy=lambda x, out: np.copyto(out, np.where(x == x, x, 0)),
    method=False,
)


def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Returns the sum over ``dim``, NaN counting as 0."""
    x = to_tensor(input)
    return sum(_without_nan(x) if x._v.dtype.kind == "f" else x, dim, keepdim, dtype=dtype)


def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Returns the mean over ``dim`` of what is not NaN."""
    x, dim = require_floating("nanmean", to_tensor(input)), all_if_empty(dim)
    x = x if dtype is None else cast(x, dtypes.as_dtype(dtype))
    present = cast(eq(x, x), x._v.dtype)
    return true_divide(nansum(x, dim, keepdim), sum(present, dim, keepdim))


# ---- truth and counts -------------------------------------------------------------------------------------------------
def _truth_dtype(dtype: np.dtype) -> np.dtype:
    return dtype if dtype == dtypes.uint8 else dtypes.bool_


def _truth(name: str, kernel: Any, numpy: Any, doc: str) -> Any:
    """Declares ``any`` or ``all``: NumPy is faster, because it ends at the first element that decides."""
    return reduction(
        name, kernel, None, doc, dtype=_truth_dtype, numpy=lambda x, axes, out: numpy(x, axes, out=out),
        no_dims_are_all=False, least=inf, reason="NumPy ends at the first element that decides, which no kernel does",
    )  # fmt: skip


any = _truth("any", functions.some, np.any, "Whether some element over ``dim`` is true (non-zero); uint8 stays uint8.")
all = _truth(
    "all", functions.every, np.all, "Whether every element over ``dim`` is true (non-zero); uint8 stays uint8."
)
count_nonzero = reduction(
    "count_nonzero", functions.truths, None, "Counts the elements over ``dim`` that are not zero, as int64.",
    dtype=dtypes.int64, numpy=lambda x, axes, out: np.copyto(out, np.count_nonzero(x, axes)),
    keepdims=False,
)  # fmt: skip
