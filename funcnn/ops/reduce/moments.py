"""Variance and standard deviation: one operation gives the variance, for so many degrees of freedom, and the mean.

    dx = 2 (x - mean) d(variance) / freedom + d(mean) / n

Sums are taken in float64, so a mean much larger than the deviations costs no digits of them.
"""

from __future__ import annotations

import builtins
from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce import launch as reduce_cpu
from funcnn.ops.base import costs
from funcnn.ops.base.dims import normalize_dims, numel
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.reduction import dropped, kept
from funcnn.ops.base.structure import cast, repeat_over, reshape_p
from funcnn.ops.elementwise.arithmetic import add, mul, sub, true_divide, zero_safe
from funcnn.ops.elementwise.math import sqrt


def _shape(x: Any, axes: tuple, freedom: int) -> tuple:
    out = Aval(dropped(tuple(x.shape), axes), x.dtype)
    return out, out


def _vjp(g: list, ins: list, outs: list, axes: tuple, freedom: int) -> tuple:
    x, mean = ins[0], outs[1]
    shape = tuple(x._v.shape)

    def narrow(t: Tensor) -> Tensor:
        return reshape_p(t, shape=kept(shape, axes))

    def pull() -> Tensor:
        count = builtins.max(numel(tuple(shape[a] for a in axes)), 1)
        level = None if g[1] is None else true_divide(g[1], count)
        if g[0] is not None:
            along = mul(sub(x, narrow(mean)), narrow(true_divide(mul(g[0], 2.0), freedom)))
            return along if level is None else add(along, narrow(level))
        assert level is not None
        return repeat_over(level, shape, axes)

    return (pull,)


moments_p = Primitive(
    "moments",
    _shape,
    cpu=reduce_cpu.MOMENTS,
    vjp=_vjp,
    batch=lambda n, ins, batched, axes, freedom: moments_p(ins[0], axes=tuple(a + 1 for a in axes), freedom=freedom),
    keeps="io",
    multiple=True,
    flops=costs.each(4),
)


def var(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """Returns the variance over ``dim``: squared deviations from the mean over ``count - correction`` (default 1)."""
    return var_mean(input, dim, unbiased, keepdim, correction=correction)[0]


def std(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """Returns the square root of ``var``; its gradient is 0 where all elements are equal."""
    return zero_safe(sqrt, var(input, dim, unbiased, keepdim, correction=correction))


def var_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """Returns ``(var, mean)`` in two passes, stable for a large mean."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    x = require_floating("var", to_tensor(input))
    if x._v.dtype == dtypes.float16:  # whose squares could overflow
        wide = var_mean(cast(x, dtypes.float32), dim, unbiased, keepdim, correction=correction)
        return cast(wide[0], dtypes.float16), cast(wide[1], dtypes.float16)
    correction = (0 if unbiased is False else 1) if correction is None else correction
    axes = normalize_dims("var", dim, x.ndim) or tuple(range(x.ndim))
    shape = tuple(x._v.shape)
    freedom = builtins.max(numel(tuple(shape[a] for a in axes)) - correction, 0)
    variance, mean = moments_p(x, axes=axes, freedom=freedom)
    if keepdim:
        return reshape_p(variance, shape=kept(shape, axes)), reshape_p(mean, shape=kept(shape, axes))
    return variance, mean


def std_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """Returns ``(std, mean)``."""
    v, m = var_mean(input, dim, unbiased, keepdim, correction=correction)
    return zero_safe(sqrt, v), m
