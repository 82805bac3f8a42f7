"""logsumexp: ``log(sum(exp(x)))``; its primitive runs along one dimension, which is dropped."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.softmax import launch as softmax_cpu
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import count_over, normalize_dims
from funcnn.ops.base.promote import floating
from funcnn.ops.base.reduction import kept
from funcnn.ops.base.structure import cast, permute_p, reduce, reshape_p, sum_p
from funcnn.ops.elementwise.arithmetic import mul, neg, sub
from funcnn.ops.elementwise.math import exp, log
from funcnn.ops.movement.views import unsqueeze


def _shape(x: Any, dim: int) -> tuple:
    return (Aval((*x.shape[:dim], *x.shape[dim + 1 :]), x.dtype),)


def _vjp(g: Tensor, ins: list, y: Tensor, dim: int) -> tuple:
    return (logsumexp_grad_p(g, ins[0], y, dim=dim),)


def _grad_vjp(u: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    """Returns the derivatives of ``g * exp(x - y)``."""
    g, x, y = ins
    share = mul(u, exp(sub(x, unsqueeze(y, dim))))
    return (
        lambda: sum_p(share, axes=(dim,)),
        lambda: mul(share, unsqueeze(g, dim)),
        lambda: neg(mul(sum_p(share, axes=(dim,)), g)),
    )


logsumexp_p = Primitive(
    "logsumexp", _shape, softmax_cpu.logsumexp, vjp=_vjp, keeps="io",
    batch=lambda n, ins, batched, dim: logsumexp_p(ins[0], dim=dim + 1),
    flops=costs.each(costs.EXP_FLOPS + 2),
)  # fmt: skip
logsumexp_grad_p = Primitive(
    "logsumexp_grad", lambda g, x, y, dim: (Aval(tuple(x.shape), x.dtype),), softmax_cpu.logsumexp_grad,
    vjp=_grad_vjp,
    batch=lambda n, ins, batched, dim: logsumexp_grad_p(*all_batched(n, ins, batched), dim=dim + 1),
    flops=costs.each(costs.EXP_FLOPS + 2),
)  # fmt: skip


def logsumexp(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Returns ``log(sum(exp(input)))`` over ``dim`` without overflow."""
    x = floating(input)
    axes = normalize_dims("logsumexp", dim, x.ndim)
    if not axes:
        return mul(x, 1.0)
    if not count_over(x, axes, "logsumexp"):
        return log(reduce(sum_p, x, axes, keepdim))
    half = x._v.dtype.itemsize < 4
    wide = cast(x, dtypes.float32) if half else x
    kept_axes = tuple(axis for axis in range(x.ndim) if axis not in axes)
    first = axes[0]
    if axes[-1] - first >= len(axes):  # not side by side
        wide, first = permute_p(wide, dims=(*kept_axes, *axes)), len(kept_axes)
    shape = tuple(wide._v.shape)
    rows = (*shape[:first], count_over(x, axes, "logsumexp"), *shape[first + len(axes) :])
    out = logsumexp_p(wide if len(axes) == 1 else reshape_p(wide, shape=rows), dim=first)
    out = cast(out, x._v.dtype) if half else out
    return reshape_p(out, shape=kept(tuple(x._v.shape), axes)) if keepdim else out
