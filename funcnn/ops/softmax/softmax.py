"""Softmax and log-softmax along one dimension; their gradients are primitives, the second derivatives compositions."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.softmax import launch as softmax_cpu
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import normalize_dim
from funcnn.ops.base.promote import operand, require_kernel_float
from funcnn.ops.base.reduction import kept
from funcnn.ops.base.structure import cast, reshape_p, sum_p
from funcnn.ops.elementwise.arithmetic import mul, neg, sub
from funcnn.ops.elementwise.math import exp


def _along(name: str, logarithm: bool) -> tuple[Primitive, Primitive]:
    """Makes the primitives of the softmax, or of its logarithm, and of its gradient."""

    def shape(x: Any, dim: int) -> tuple:
        require_kernel_float(name, x)
        return (x,)

    grad = Primitive(
        f"{name}_grad",
        lambda dy, y, dim: (Aval(tuple(y.shape), y.dtype),),
        softmax_cpu.softmax_grad(logarithm),
        vjp=_log_softmax_grad_vjp if logarithm else _softmax_grad_vjp,
        batch=lambda n, ins, batched, dim: grad(*all_batched(n, ins, batched), dim=dim + 1),
        flops=costs.each(costs.EXP_FLOPS + 3 if logarithm else 4),
    )
    prim = Primitive(
        name,
        shape,
        softmax_cpu.softmax(logarithm),
        vjp=lambda g, ins, y, dim: (grad(g, y, dim=dim),),
        batch=lambda n, ins, batched, dim: prim(ins[0], dim=dim + 1),
        keeps="o",
        flops=costs.each(costs.EXP_FLOPS + 4),
    )
    return prim, grad


def total(x: Tensor, dim: int) -> Tensor:
    """Returns the sum along ``dim``, kept as a 1."""
    return reshape_p(sum_p(x, axes=(dim,)), shape=kept(tuple(x._v.shape), (dim,)))


def _softmax_grad_vjp(u: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    """Returns the derivatives of ``y * (dy - sum(dy * y))``."""
    dy, y = ins

    def d_y() -> Tensor:
        return sub(mul(u, sub(dy, total(mul(dy, y), dim))), mul(dy, total(mul(u, y), dim)))

    return lambda: mul(y, sub(u, total(mul(u, y), dim))), d_y


def _log_softmax_grad_vjp(u: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    """Returns the derivatives of ``dy - exp(y) * sum(dy)``."""
    dy, y = ins
    weighted = mul(u, exp(y))
    return lambda: sub(u, total(weighted, dim)), lambda: neg(mul(weighted, total(dy, dim)))


softmax_p, softmax_grad_p = _along("softmax", False)
log_softmax_p, log_softmax_grad_p = _along("log_softmax", True)


def _apply(prim: Primitive, input: Any, dim: int | None, dtype: Any) -> Tensor:
    x = operand(prim.name, input)
    x = x if dtype is None else cast(x, dtypes.as_dtype(dtype))
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1  # PyTorch's rule for an unnamed dimension
    dim = normalize_dim(prim.name, dim, x.ndim)
    if x.ndim == 0:
        return reshape_p(prim(reshape_p(x, shape=(1,)), dim=0), shape=())
    return prim(x, dim=dim)


def softmax(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """Returns ``exp(input) / sum(exp(input))`` along ``dim``, without overflow."""
    return _apply(softmax_p, input, dim, dtype)


def log_softmax(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """Returns ``log(softmax(input))`` along ``dim``, without overflow or underflow."""
    return _apply(log_softmax_p, input, dim, dtype)


def softmin(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """Returns ``softmax(-input)``."""
    return softmax(neg(input), dim, dtype)
