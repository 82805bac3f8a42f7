"""Local response normalization across channels: one primitive and its gradient, differentiated again by composition."""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.norm import lrn_launch as launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched, merge_batch, split_batch
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import operand
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.elementwise.math import pow
from funcnn.ops.movement.pad import pad
from funcnn.ops.movement.views import narrow, reshape
from funcnn.ops.norm.primitives import checked


def _shape(x: Any, residuals: bool = True, **params: Any) -> tuple:
    checked("local_response_norm", x)
    return (Aval(tuple(x.shape), x.dtype),) * (1 + residuals)


def _window(t: Tensor, before: int, after: int) -> Tensor:
    """Returns the sum over the channels from ``before`` below to ``after`` above each, for t (N, C, S)."""
    wide, channels = pad(t, (0, 0, before, after)), t._v.shape[1]
    total = narrow(wide, 1, 0, channels)
    for shift in range(1, before + after + 1):
        total = add(total, narrow(wide, 1, shift, channels))
    return total


def _vjp(
    g: list, ins: list, outs: list, size: int, alpha: float, beta: float, k: float, residuals: bool = True
) -> tuple:
    x, base = ins[0], outs[1]

    def dx() -> Tensor | None:
        whole = None
        if g[0] is not None:
            whole = lrn_grad_p(g[0], x, base, size=size, alpha=alpha, beta=beta, k=k)
        if g[1] is None:
            return whole
        through = mul(mul(x, _window(g[1], (size - 1) // 2, size // 2)), 2.0 * alpha / size)
        return through if whole is None else add(whole, through)

    return (dx,)


def _grad_vjp(u: Tensor, ins: list, o: Tensor, size: int, alpha: float, beta: float, k: float) -> tuple:
    """Returns the derivatives of ``dy * base^-beta + s * x * window(dy * x * base^(-beta - 1))``, s = -2 alpha beta / size."""
    dy, x, base = ins
    share = -2.0 * alpha * beta / size
    first, second = pow(base, -beta), pow(base, -beta - 1.0)
    across = mul(_window(mul(u, x), size // 2, (size - 1) // 2), share)

    def d_x() -> Tensor:
        inner = _window(mul(mul(dy, x), second), (size - 1) // 2, size // 2)
        return add(mul(mul(u, inner), share), mul(mul(dy, second), across))

    def d_base() -> Tensor:
        third = mul(mul(mul(mul(dy, x), pow(base, -beta - 2.0)), across), -beta - 1.0)
        return add(mul(mul(mul(u, dy), second), -beta), third)

    return lambda: add(mul(u, first), mul(mul(x, second), across)), d_x, d_base


lrn_p = Primitive(
    "local_response_norm", _shape, launch.local_response, vjp=_vjp, keeps="io", multiple=True,
    batch=lambda n, ins, batched, **params: [split_batch(out, n) for out in lrn_p(merge_batch(ins[0]), **params)],
    unused=lambda used, params: None if used[1] else (lrn_p, {**params, "residuals": False}),
    flops=costs.each(7),
)  # fmt: skip
lrn_grad_p = Primitive(
    "local_response_norm_grad",
    lambda dy, x, base, **params: (Aval(tuple(x.shape), x.dtype),),
    launch.local_response_grad,
    vjp=_grad_vjp,
    batch=lambda n, ins, batched, **params: split_batch(
        lrn_grad_p(*[merge_batch(t) for t in all_batched(n, ins, batched)], **params), n
    ),
    flops=costs.each(11),
)


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Returns ``x / (k + alpha / size * sum(x ** 2)) ** beta``, the sum over ``size`` neighbouring channels.

    The input is (N, C, ...) with at least 3 dimensions (Krizhevsky et al., 2012, section 3.3).
    """
    x = operand("local_response_norm", input)
    if x.ndim < 3:
        raise ValueError(
            f"local_response_norm: expected at least 3 dimensions (N, C, ...), got shape {tuple(x.shape)}; "
            "unsqueeze(0) makes a batch of one"
        )
    if size < 1:
        raise ValueError(f"local_response_norm: size must be positive, got {size}")
    n, c, *space = x._v.shape
    rows = reshape(x, (n, c, numel(tuple(space))))
    y = lrn_p(rows, size=int(size), alpha=float(alpha), beta=float(beta), k=float(k))[0]
    return reshape(y, x._v.shape)
