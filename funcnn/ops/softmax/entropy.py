"""Cross-entropy on class indices as one fused primitive, and its gradient as another.

x is (N, C, S) and target (N, S); the loss is (N, S) with ``reduction`` "none", else a scalar. Two residuals for each row,
its maximum ``top`` and ``rest = log(sum(exp(x - top)))``, are all that the gradient needs beside x:

    loss = rest - (x[target] - top),  dx = (exp(x - top - rest) - onehot(target)) * dloss

``top`` counts as a constant in derivatives, for it cancels.
"""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.softmax import launch as softmax_cpu
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched, merge_batch, split_batch
from funcnn.ops.base.promote import require_kernel_float
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import add, mul, neg, sub, true_divide
from funcnn.ops.elementwise.comparison import eq, ne
from funcnn.ops.elementwise.math import exp
from funcnn.ops.movement.views import expand, reshape, unsqueeze
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.tensor.creation import arange


def no_class(name: str, words: tuple, classes: int, ignore_index: int) -> IndexError:
    """Returns the exception for such a target."""
    return IndexError(
        f"{name}: target {words[3]} is out of range for {classes} classes "
        f"(0 to {classes - 1}; ignore_index is {ignore_index})"
    )


def _shape(x: Any, target: Any, ignore_index: int, reduction: str) -> tuple:
    require_kernel_float("cross_entropy", x, "float32 or float64 logits")
    row = Aval(tuple(target.shape), x.dtype)
    return (row if reduction == "none" else Aval((), x.dtype)), row, row


def _vjp(g: list, ins: list, outs: list, ignore_index: int, reduction: str) -> tuple:
    x, target = ins
    _, top, rest = outs

    def dx() -> Tensor | None:
        parts = []
        if g[0] is not None:
            parts.append(entropy_grad_p(x, target, g[0], top, rest, ignore_index=ignore_index, reduction=reduction))
        if g[2] is not None:
            parts.append(mul(_probabilities(x, top, rest), unsqueeze(g[2], 1)))
        return add(*parts) if len(parts) == 2 else parts[0] if parts else None

    return dx, None


def _probabilities(x: Tensor, top: Tensor, rest: Tensor) -> Tensor:
    return exp(sub(sub(x, unsqueeze(top, 1)), unsqueeze(rest, 1)))


def _counted(target: Tensor, ignore_index: int, dtype: Any) -> Tensor:
    return cast(ne(target, ignore_index), dtype)


# ---- the gradient -------------------------------------------------------------------------------------------------------
def _grad_vjp(u: Tensor, ins: list, o: Tensor, ignore_index: int, reduction: str) -> tuple:
    x, target, dloss, top, rest = ins
    dtype = x._v.dtype
    counted = _counted(target, ignore_index, dtype)
    shares = true_divide(counted, sum_(counted)) if reduction == "mean" else counted
    scale = mul(shares, dloss)
    p = _probabilities(x, top, rest)

    def d_loss() -> Tensor:
        classes = reshape(arange(x._v.shape[1], device=x.device), (1, -1, 1))
        hot = cast(eq(classes, unsqueeze(target, 1)), dtype)
        found = mul(sum_(mul(u, sub(p, hot)), 1), shares)
        return found if reduction == "none" else sum_(found)

    return (
        lambda: mul(mul(u, p), unsqueeze(scale, 1)),
        None,
        d_loss,
        None,
        lambda: neg(mul(sum_(mul(u, p), 1), scale)),
    )


# ---- batching: on losses for each row, which are reduced for each example afterwards ------------------------------------------
def _counts(target: Tensor, ignore_index: int, dtype: Any) -> Tensor:
    """Counts the targets of each example that are not ignored, for target (B, N, S)."""
    return sum_(_counted(target, ignore_index, dtype), (1, 2))


def _batch(n: int, ins: list, batched: list, ignore_index: int, reduction: str) -> list:
    x, target = all_batched(n, ins, batched)
    outs = entropy_p(merge_batch(x), merge_batch(target), ignore_index=ignore_index, reduction="none")
    loss, top, rest = [split_batch(out, n) for out in outs]
    if reduction != "none":
        loss = sum_(loss, (1, 2))
    if reduction == "mean":
        loss = true_divide(loss, _counts(target, ignore_index, x._v.dtype))
    return [loss, top, rest]


def _grad_batch(n: int, ins: list, batched: list, ignore_index: int, reduction: str) -> Tensor:
    x, target, dloss, top, rest = all_batched(n, ins, batched)
    if reduction == "mean":
        dloss = true_divide(dloss, _counts(target, ignore_index, x._v.dtype))
    if reduction != "none":
        dloss = expand(reshape(dloss, (n, 1, 1)), tuple(target._v.shape))
    folded = [merge_batch(t) for t in (x, target, dloss, top, rest)]
    return split_batch(entropy_grad_p(*folded, ignore_index=ignore_index, reduction="none"), n)


entropy_p = Primitive(
    "cross_entropy", _shape, softmax_cpu.cross_entropy, vjp=_vjp, batch=_batch, keeps="io", multiple=True,
    looks=softmax_cpu.looks_at_targets,
    refuse=lambda meaning, words, ins, ignore_index, reduction: no_class(
        "cross_entropy", words, ins[0].shape[1], ignore_index
    ),
    flops=costs.each(costs.EXP_FLOPS + 4),
)  # fmt: skip
entropy_grad_p = Primitive(
    "cross_entropy_grad",
    shape=lambda x, target, dloss, top, rest, **params: (Aval(tuple(x.shape), x.dtype),),
    cpu=softmax_cpu.cross_entropy_grad,
    vjp=_grad_vjp,
    batch=_grad_batch,
    flops=costs.each(costs.EXP_FLOPS + 3),
)
