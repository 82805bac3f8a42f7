"""The p-norms of vectors, and of matrices the nuclear norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce import functions
from funcnn.kernels.cpu.reduce.launch import blocked_sum
from funcnn.ops.base.dims import count_over
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.reduction import all_if_empty
from funcnn.ops.base.structure import cast, number_like, repeat_over
from funcnn.ops.elementwise.arithmetic import abs as abs_
from funcnn.ops.elementwise.arithmetic import mul, true_divide, zero_safe
from funcnn.ops.elementwise.comparison import eq, ne
from funcnn.ops.elementwise.math import pow as power
from funcnn.ops.elementwise.select import where
from funcnn.ops.matmul.svd import nuclear_norm
from funcnn.ops.reduce.declare import FLOAT, reduction
from funcnn.ops.reduce.extrema import amax, amin
from funcnn.ops.reduce.sums import sum as sum_


def _length(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    blocked_sum(np.square(x), axes, out)
    np.sqrt(out, out)


def _length_grad(g: Tensor, x: Tensor, o: Tensor, axes: tuple) -> Tensor:
    """Returns ``g x / o``, and 0 where the norm is 0, which has no derivative there."""
    nothing = eq(o, 0.0)
    share = where(nothing, 0.0, true_divide(g, where(nothing, 1.0, o)))
    return mul(x, repeat_over(share, x._v.shape, axes))


length = reduction(
    "norm", functions.norms, _length_grad, "Returns the square root of the sum of squares over ``dim``.",
    keeps="io", takes=FLOAT, numpy=_length, flops=2.0, method=False,
)  # fmt: skip


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """Returns the p-norm over ``dim``, ``sum(|x| ** p) ** (1 / p)``: "fro" is 2, 0 counts non-zeros, +-inf are extrema.

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
        return length(x, dim, keepdim)
    if p < 0 and not count_over(x, all_if_empty(dim), "norm"):
        raise IndexError(f"norm: p={p} is not defined for no elements, got shape {tuple(x.shape)}")
    at_zero = 0.0 if p > 0 else math.inf
    total = sum_(zero_safe(lambda t: power(t, p), abs_(x), at_zero), dim, keepdim)
    return zero_safe(lambda t: power(t, 1.0 / p), total, at_zero)
