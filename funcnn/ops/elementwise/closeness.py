"""Whether tensors agree: elementwise within a tolerance, all of it, or exactly."""

from __future__ import annotations

from typing import Any

from funcnn.core.tensor import Tensor
from funcnn.ops.base.promote import floating, promoted, require_same_dtype, to_tensor
from funcnn.ops.elementwise.arithmetic import abs as abs_
from funcnn.ops.elementwise.arithmetic import add, mul, sub
from funcnn.ops.elementwise.comparison import eq, isfinite, isnan, le, logical_and, logical_or
from funcnn.ops.reduce.sums import all as all_


def isclose(input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """``|input - other| <= atol + rtol * |other|``, elementwise; equal infinities are close."""
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        require_same_dtype("isclose", input, other)
    x, y = promoted("isclose", input, other)
    if x._v.dtype.kind == "b":
        x, y = floating(x), floating(y)
    near = logical_and(le(abs_(sub(x, y)), add(mul(abs_(y), rtol), atol)), isfinite(y))
    close = logical_or(eq(x, y), near)
    return logical_or(close, logical_and(isnan(x), isnan(y))) if equal_nan else close


def allclose(input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close, as a Python bool; see ``isclose``."""
    return bool(all_(isclose(input, other, rtol, atol, equal_nan)))


def equal(input: Any, other: Any) -> bool:
    """Whether two tensors have one shape and equal elements, as a Python bool."""
    x, y = to_tensor(input), to_tensor(other)
    return x._v.shape == y._v.shape and bool(all_(eq(x, y)))
