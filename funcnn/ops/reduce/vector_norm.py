"""The p-norms of vectors, and of matrices the nuclear norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce.launch import SQUARES, blocked_sum
from funcnn.ops.base.dims import count_over
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.reduction import all_if_empty, reduction
from funcnn.ops.base.structure import cast, number_like, reduce, spread
from funcnn.ops.elementwise.arithmetic import abs as abs_
from funcnn.ops.elementwise.arithmetic import mul, zero_safe
from funcnn.ops.elementwise.comparison import ne
from funcnn.ops.elementwise.math import pow as power
from funcnn.ops.elementwise.math import sqrt
from funcnn.ops.elementwise.select import where
from funcnn.ops.matmul.svd import nuclear_norm
from funcnn.ops.reduce.extrema import amax, amin
from funcnn.ops.reduce.sums import sum as sum_

sum_of_squares_p = reduction(
    "sum_of_squares",
    lambda x, axes, out: blocked_sum(np.square(x), axes, out),
    lambda g, ins, o, axes: (mul(ins[0], spread(mul(g, 2.0), ins[0]._v.shape, axes)),),
    keeps="i",
    fast=SQUARES,
)


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm over ``dim``: ``sum(|x| ** p) ** (1 / p)``; "fro" is 2; inf and -inf are extrema; 0 counts non-zeros.

    "nuc" is the nuclear norm of matrices, the sum of their singular values, over two dimensions.
    """
    x = to_tensor(input)
    x = require_floating("norm", x if dtype is None else cast(x, dtypes.as_dtype(dtype)))
    if x._v.dtype == dtypes.float16:  # whose powers could overflow
        return cast(norm(cast(x, dtypes.float32), p, dim, keepdim), dtypes.float16)
    if p == "nuc":
        return nuclear_norm(x, dim, keepdim)
    p = 2 if p is None or p == "fro" else p
    if not isinstance(p, (int, float)):
        raise DTypeError(f"norm: p must be a number, 'fro' or 'nuc', got {p!r}")
    if p in (math.inf, -math.inf):
        return (amax if p > 0 else amin)(abs_(x), dim, keepdim)
    if p == 0:
        return sum_(where(ne(x, 0.0), number_like(x, 1.0), mul(x, 0.0)), dim, keepdim)  # with a derivative: 0
    if p == 1:
        return sum_(abs_(x), dim, keepdim)
    if p == 2:
        return zero_safe(sqrt, reduce(sum_of_squares_p, x, all_if_empty(dim), keepdim))
    if p < 0 and not count_over(x, all_if_empty(dim), "norm"):
        raise IndexError(f"norm: p={p} is not defined for no elements, got shape {tuple(x.shape)}")
    at_zero = 0.0 if p > 0 else math.inf
    total = sum_(zero_safe(lambda t: power(t, p), abs_(x), at_zero), dim, keepdim)
    return zero_safe(lambda t: power(t, 1.0 / p), total, at_zero)
