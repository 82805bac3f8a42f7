"""Losses. ``reduction`` is "mean", "sum" or "none"; targets that are class indices are checked against the classes."""

from __future__ import annotations

import warnings
from typing import Any

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.graph import rescue
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise.look_launch import same_numbers
from funcnn.kernels.cpu.elementwise.looking import look_at_classes
from funcnn.kernels.cpu.softmax.binary_launch import binary_cross_entropy_looks, binary_cross_entropy_ways
from funcnn.kernels.cpu.softmax.launch import NO_CLASS, out_of_classes
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import operand, require_same_dtype, to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.activation import SATURATED, softplus
from funcnn.ops.elementwise.arithmetic import abs as abs_
from funcnn.ops.elementwise.arithmetic import add, mul, neg, square, sub, true_divide
from funcnn.ops.elementwise.bounds import clamp
from funcnn.ops.elementwise.comparison import eq, ge, ne
from funcnn.ops.elementwise.math import exp, log
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.along import gather
from funcnn.ops.indexing.index import index_p
from funcnn.ops.movement.views import reshape, unsqueeze
from funcnn.ops.reduce.sums import mean
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.softmax.entropy import entropy_p, no_class
from funcnn.ops.softmax.softmax import log_softmax


def reduction_of(reduction: str, size_average: Any, reduce: Any) -> str:
    """Returns ``reduction``, or what PyTorch's older ``size_average`` and ``reduce`` mean where one of them is given."""
    if size_average is None and reduce is None:
        return reduction
    return "none" if reduce is False else "sum" if size_average is False else "mean"


def reduced(loss: Tensor, reduction: str, name: str) -> Tensor:
    """Applies a reduction. Raises ``ValueError`` for an unknown one."""
    known(reduction, name)
    return loss if reduction == "none" else mean(loss) if reduction == "mean" else sum_(loss)


def known(reduction: str, name: str) -> None:
    """Raises ``ValueError`` for an unknown reduction."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


# ---- cross-entropy -----------------------------------------------------------------------------------------------------
# Targets that passed the check, as they were: an operation of its own, so that it is checked at every run under jit.
_CLASSES = same_numbers(look_at_classes, NO_CLASS, out_of_classes, ("classes", "ignore_index"))
classes_p = Primitive(
    "nll_loss",
    shape=lambda target, classes, ignore_index: (target,),
    cpu=_CLASSES[0],
    batch=lambda n, ins, batched, **params: classes_p(ins[0], **params),
    looks=_CLASSES[1],
    refuse=lambda meaning, words, ins, classes, ignore_index: no_class("nll_loss", words, classes, ignore_index),
    flops=costs.each(1),  # a comparison
)


def _class_shapes(name: str, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, tuple]:
    """Returns input as (N, C, S), indices as (N, S), and the shape of a loss for each index."""
    if target._v.dtype.kind not in "iu":
        raise DTypeError(f"{name}: expected integer class indices, got {target.dtype}; convert with .long()")
    shape, classes = tuple(target._v.shape), tuple(x._v.shape)
    if x.ndim == 0 or classes[: 1 if x.ndim > 1 else 0] + classes[2 if x.ndim > 1 else 1 :] != shape:
        raise ShapeError(f"{name}: input of shape {classes} needs a target of shape "
                         f"{classes[:1] + classes[2:] if x.ndim > 1 else ()}, got {shape}")  # fmt: skip
    n, c = (classes[0], classes[1]) if x.ndim > 1 else (1, classes[0])
    s = numel(classes[2:])
    return reshape(x, (n, c, s)), cast(reshape(target, (n, s)), dtypes.int64), shape


def cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Returns ``-log(softmax(input)[target])`` for logits (N, C, ...) or (C,), and class indices (N, ...) or probabilities.

    weight: one for each class; the mean then divides by the weights of the targets. ignore_index: a target that does not
    count. label_smoothing: the share of the target spread evenly over all classes.
    Raises ``IndexError`` for a class out of range, ``ShapeError`` and ``DTypeError`` for what does not fit.
    """
    x, t = to_tensor(input), to_tensor(target)
    reduction = reduction_of(reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing must be between 0 and 1, got {label_smoothing}")
    if t._v.dtype.kind == "f":
        if ignore_index >= 0:
            raise ValueError(
                f"cross_entropy: ignore_index is for class indices, got {ignore_index} with probabilities; give such rows "
                "probabilities of 0"
            )
        return _probability_entropy(x, t, weight, reduction, label_smoothing)
    rows, index, shape = _class_shapes("cross_entropy", x, t)
    if weight is not None or label_smoothing:
        return _smoothed(rows, index, shape, weight, ignore_index, reduction, label_smoothing)
    known(reduction, "cross_entropy")
    loss = rescue(entropy_p(rows, index, ignore_index=int(ignore_index), reduction=reduction)[0])
    return reshape(loss, shape) if reduction == "none" else loss


def _smoothed(
    rows: Tensor, index: Tensor, shape: tuple, weight: Any, ignore_index: int, reduction: str, share: float
) -> Tensor:
    loss, counts = _nll(log_softmax(rows, 1), index, weight, ignore_index)
    parts = [loss]
    if share:
        logp = log_softmax(rows, 1)
        classes = logp._v.shape[1]
        weighted = logp if weight is None else mul(logp, reshape(weight, (classes, 1)))
        even = where(eq(index, ignore_index), 0.0, neg(sum_(weighted, 1)))
        parts = [mul(loss, 1.0 - share), mul(even, share / classes)]
    if reduction == "mean":  # of each part by itself: where no target weighs anything, the first has none
        parts = [true_divide(sum_(part), sum_(counts)) for part in parts]
    loss = add(*parts) if share else parts[0]
    return loss if reduction == "mean" else reduced(reshape(loss, shape), reduction, "cross_entropy")


def _probability_entropy(x: Tensor, t: Tensor, weight: Any, reduction: str, share: float) -> Tensor:
    if x._v.shape != t._v.shape:
        raise ShapeError(f"cross_entropy: probabilities of shape {tuple(t.shape)} for logits of {tuple(x.shape)}")
    dim = 1 if x.ndim > 1 else 0
    classes = x._v.shape[dim]
    logp = log_softmax(x, dim)
    if share:
        t = add(mul(t, 1.0 - share), share / classes)
    if weight is not None:
        logp = mul(logp, reshape(weight, (classes, *(1,) * (x.ndim - dim - 1))))
    loss = neg(sum_(mul(logp, t), dim))
    if reduction == "mean":
        return true_divide(sum_(loss), loss._v.size if classes else 0)
    return reduced(loss, reduction, "cross_entropy")


def _nll(logp: Tensor, index: Tensor, weight: Any, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Loss and weight of each target, for logp (N, C, S) and index (N, S)."""
    index = classes_p(index, classes=logp._v.shape[1], ignore_index=int(ignore_index))
    ignored = eq(index, ignore_index)
    safe = where(ignored, 0, index)
    picked = reshape(gather(logp, 1, unsqueeze(safe, 1)), tuple(index._v.shape))
    counts = cast(ne(index, ignore_index), logp._v.dtype)
    if weight is not None:
        w = to_tensor(weight)
        if tuple(w._v.shape) != (logp._v.shape[1],):
            raise ShapeError(
                f"nll_loss: expected a weight for each of {logp._v.shape[1]} classes, got {tuple(w.shape)}"
            )
        require_same_dtype("nll_loss", logp, w)
        counts = mul(counts, index_p(w, safe))
    return where(ignored, 0.0, neg(mul(picked, counts))), counts


def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Returns ``-input[target]`` for log-probabilities (N, C, ...) or (C,) and class indices (N, ...)."""
    reduction = reduction_of(reduction, size_average, reduce)
    rows, index, shape = _class_shapes("nll_loss", operand("nll_loss", input), operand("nll_loss", target))
    loss, counts = _nll(rows, index, weight, ignore_index)
    if reduction == "mean":
        return true_divide(sum_(loss), sum_(counts))
    return reduced(reshape(loss, shape), reduction, "nll_loss")


# ---- regression -------------------------------------------------------------------------------------------------------
def _difference(name: str, input: Any, target: Any) -> Tensor:
    x, t = operand(name, input), operand(name, target)
    if x._v.shape != t._v.shape:
        warnings.warn(
            f"{name}: target of shape {tuple(t.shape)} is broadcast against input of shape {tuple(x.shape)}; "
            "this is rarely meant",
            stacklevel=3,
        )
    return sub(x, t)


def mse_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """Returns ``(input - target) ** 2``."""
    loss = square(_difference("mse_loss", input, target))
    return reduced(loss, reduction_of(reduction, size_average, reduce), "mse_loss")


def l1_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """Returns ``|input - target|``."""
    loss = abs_(_difference("l1_loss", input, target))
    return reduced(loss, reduction_of(reduction, size_average, reduce), "l1_loss")


def _huber(difference: Tensor, delta: float) -> Tensor:
    """Returns ``0.5 n**2 + delta (d - n)`` with n = min(d, delta): both branches at once, with a derivative at infinity, too."""
    d = abs_(difference)
    near = where(ge(d, delta), delta, d)  # no minimum: the derivative at NaN is NaN
    return add(mul(square(near), 0.5), mul(sub(d, near), delta))


def smooth_l1_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Returns ``0.5 d**2 / beta`` where ``d = |input - target| < beta``, else ``d - 0.5 beta``."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    difference = _difference("smooth_l1_loss", input, target)
    loss = abs_(difference) if beta == 0 else true_divide(_huber(difference, beta), beta)
    return reduced(loss, reduction_of(reduction, size_average, reduce), "smooth_l1_loss")


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Returns ``0.5 d**2`` where ``d = |input - target| < delta``, else ``delta * (d - 0.5 delta)``."""
    if delta <= 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    return reduced(_huber(_difference("huber_loss", input, target), delta), reduction, "huber_loss")


# ---- binary and divergence ----------------------------------------------------------------------------------------------
def _binary_shape(p: Any, t: Any) -> tuple:
    require_same_dtype("binary_cross_entropy", p, t)
    if p.dtype.kind != "f":
        raise DTypeError(f"binary_cross_entropy: expected floating-point tensors, got {p.dtype}")
    if tuple(p.shape) != tuple(t.shape):
        raise ShapeError(
            f"binary_cross_entropy: input {tuple(p.shape)} and target {tuple(t.shape)} must have one shape"
        )
    return (p,)


def _binary_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    """Returns the quotient of the two logarithms' derivatives on one denominator, held above 0 by 1e-12, as PyTorch."""
    p, t = ins
    return (
        lambda: mul(g, true_divide(sub(p, t), clamp(mul(p, sub(1.0, p)), 1e-12))),
        lambda: mul(g, sub(clamp(log(sub(1.0, p)), -100.0), clamp(log(p), -100.0))),
    )


def _no_probability(meaning: str, words: tuple, ins: list) -> ValueError:
    return ValueError(
        "binary_cross_entropy: input must be probabilities from 0 to 1; apply sigmoid, or use _with_logits"
    )


binary_p = Primitive(
    "binary_cross_entropy",
    _binary_shape,
    binary_cross_entropy_ways,
    vjp=_binary_vjp,
    batch=lambda n, ins, batched: binary_p(*all_batched(n, ins, batched)),
    looks=binary_cross_entropy_looks,
    refuse=_no_probability,
    flops=costs.each(2 * costs.LOG_FLOPS + 4),
)


def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """Returns ``-(t log p + (1 - t) log(1 - p))``, the logarithms held above -100. Raises ``ValueError`` for p outside 0..1."""
    loss = binary_p(to_tensor(input), to_tensor(target))
    loss = loss if weight is None else mul(loss, weight)
    return reduced(loss, reduction_of(reduction, size_average, reduce), "binary_cross_entropy")


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    pos_weight: Any = None,
) -> Tensor:  # fmt: skip
    """Returns ``binary_cross_entropy(sigmoid(input), target)`` without overflow; ``pos_weight`` scales the positive term."""
    x, t = to_tensor(input), to_tensor(target)
    if x._v.shape != t._v.shape:
        raise ShapeError(
            f"binary_cross_entropy_with_logits: input {tuple(x.shape)} and target {tuple(t.shape)} must have one shape"
        )
    scale = 1.0 if pos_weight is None else add(mul(sub(pos_weight, 1.0), t), 1.0)
    loss = add(mul(sub(1.0, t), x), mul(softplus(neg(x), threshold=SATURATED), scale))
    loss = loss if weight is None else mul(loss, weight)
    return reduced(loss, reduction_of(reduction, size_average, reduce), "binary_cross_entropy_with_logits")


def kl_div(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Returns ``target * (log(target) - input)`` for log-probabilities ``input``; "batchmean" divides by the batch size."""
    x, t = to_tensor(input), to_tensor(target)
    if log_target:
        loss = mul(exp(t), sub(t, x))
    else:
        positive = where(eq(t, 0.0), 1.0, t)
        loss = sub(where(eq(t, 0.0), 0.0, mul(t, log(positive))), mul(t, x))
    reduction = reduction_of(reduction, size_average, reduce)
    if reduction == "batchmean":
        return true_divide(sum_(loss), x._v.shape[0] if x.ndim else 1)
    return reduced(loss, reduction, "kl_div")
