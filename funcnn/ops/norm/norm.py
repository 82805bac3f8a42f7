"""Batch, layer, group, instance and RMS normalization: checks and shapes around the primitives of ``normalize.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.context import ctx, recordable, running
from funcnn.core.errors import ShapeError
from funcnn.core.mutation import assign
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.norm.launch import follows, scales
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched, merge_batch, merge_channels, split_channels
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import operand, require_floating, require_same_dtype, to_tensor
from funcnn.ops.base.structure import cast, sum_p
from funcnn.ops.elementwise.arithmetic import add, mul, neg, square, sub
from funcnn.ops.elementwise.math import rsqrt
from funcnn.ops.movement.views import reshape
from funcnn.ops.norm.primitives import (
    batch_norm_p,
    checked,
    group_norm_p,
    layer_norm_p,
    rms_norm_p,
)
from funcnn.ops.reduce.sums import mean as mean_
from funcnn.ops.tensor.creation import ones


# ---- evaluation: given statistics ---------------------------------------------------------------------------------------
def _scale_shape(x: Any, *rest: Any, eps: float) -> tuple:
    checked("batch_norm", x, *rest)
    return (x,)


def _scale_vjp(g: Tensor, ins: list, y: Tensor, eps: float) -> tuple:
    x, mean, var, *affine = ins
    rstd = rsqrt(add(var, eps))
    scale = mul(rstd, affine[0]) if affine else rstd

    def along() -> Tensor:
        """Returns the sum of dy * (x - mean) for each channel."""
        return sum_p(mul(g, sub(x, _per_channel(mean))), axes=(0, 2))

    return (
        lambda: mul(g, _per_channel(scale)),
        lambda: neg(mul(sum_p(g, axes=(0, 2)), scale)),
        lambda: mul(mul(mul(along(), scale), square(rstd)), -0.5),
        lambda: mul(along(), rstd),
        lambda: sum_p(g, axes=(0, 2)),
    )[: len(ins)]


def _per_channel(t: Tensor) -> Tensor:
    """Returns (C,) as (C, 1), to meet (N, C, S)."""
    return reshape(t, (*t._v.shape, 1))


def _scale_batch(n: int, ins: list, batched: list, eps: float) -> Tensor:
    x, *rest = all_batched(n, ins, batched)
    return split_channels(scale_p(merge_channels(x), *[merge_batch(t) for t in rest], eps=eps), n)


scale_p = Primitive(
    "batch_norm_evaluation", _scale_shape, scales, vjp=_scale_vjp, batch=_scale_batch, flops=costs.each(7)
)


# ---- running statistics -------------------------------------------------------------------------------------------------
follow_p = Primitive(
    "running_statistics",
    shape=lambda *avals, momentum, scales: avals[: len(scales)],
    cpu=follows,
    vjp=lambda g, ins, outs, momentum, scales: (
        *[None if g[slot] is None else mul(g[slot], 1.0 - momentum) for slot in range(len(scales))],
        *[None for _ in scales],
    ),
    batch=lambda n, ins, batched, **params: follow_p(*all_batched(n, ins, batched), **params),
    keeps="",
    multiple=True,
    flops=costs.each(4),
)


def follow(held: Any, batch: Any, momentum: float, scales: tuple) -> list[Tensor]:
    """Returns ``held * (1 - momentum) + batch * scale * momentum`` for each; the batch is constant to gradients."""
    return follow_p(*map(to_tensor, held), *batch, momentum=float(momentum), scales=scales)


# ---- batch norm -------------------------------------------------------------------------------------------------------
def _affine(x: Tensor, weight: Any, bias: Any, shape: tuple) -> list[Tensor]:
    """Returns weight and bias of ``shape`` as far as given; a bias alone gets a weight of ones."""
    if weight is None and bias is None:
        return []
    weight = ones(shape, dtype=x._v.dtype, device=x.device) if weight is None else weight
    given = [to_tensor(t) for t in (weight, bias) if t is not None]
    return [t if tuple(t._v.shape) == shape else reshape(t, shape) for t in given]


def _require_dtype_of(name: str, x: Tensor, *others: Any) -> None:
    require_same_dtype(name, x, *[other for other in others if other is not None])


def _channels(name: str, x: Tensor, *stats: Any) -> tuple[int, int, int]:
    """Returns x (N, C, ...) as (N, C, S); the given per-channel values must be C."""
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 dimensions (N, C, ...), got shape {tuple(x.shape)}")
    for stat in stats:
        if stat is not None and tuple(stat.shape) != (x._v.shape[1],):
            raise ShapeError(f"{name}: expected values for {x._v.shape[1]} channels, got shape {tuple(stat.shape)}")
    _require_dtype_of(name, x, *stats)
    return x._v.shape[0], x._v.shape[1], numel(tuple(x._v.shape[2:]))


def batch_statistics_norm(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Any, Any, float]:
    """Returns ``(y, mean, biased variance, what makes it unbiased)`` with the batch's own statistics, of which nothing has none.

    Raises ``ShapeError`` for one value per channel, ``ValueError`` for an ``eps`` that is not positive.
    """
    x = operand("batch_norm", x)
    n, c, s = _channels("batch_norm", x, weight, bias)
    if eps <= 0:
        raise ValueError(f"batch_norm: eps must be positive in training, got {eps}; the default is 1e-5")
    if not n * s:
        rows = reshape(x, (n, c, s))
        for scale, combine in zip(_affine(x, weight, bias, (c,)), (mul, add), strict=False):
            rows = combine(rows, _per_channel(scale))
        return reshape(rows, x._v.shape), None, None, 1.0
    if n * s == 1:
        raise ShapeError(
            f"batch_norm: training needs more than 1 value per channel, got an input of shape {tuple(x.shape)}"
        )
    y, mean, _, var = batch_norm_p(x, *_affine(x, weight, bias, (c,)), eps=float(eps), groups=0)
    return y, mean, var, n * s / (n * s - 1)


def batch_norm_training(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Any, Any]:
    """Returns ``(y, mean, unbiased variance)`` with the batch's own statistics, None for those of nothing.

    Raises ``ShapeError`` for one value per channel.
    """
    y, mean, var, unbiased = batch_statistics_norm(x, weight, bias, eps)
    if mean is None:
        return y, None, None
    return y, mean, mul(var, unbiased)


def batch_norm_inference(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> Tensor:
    """Returns ``(x - mean) / sqrt(var + eps) * weight + bias`` with given statistics."""
    x = operand("batch_norm", x)
    n, c, s = _channels("batch_norm", x, mean, var, weight, bias)
    stats = (to_tensor(mean), to_tensor(var))
    y = scale_p(reshape(x, (n, c, s)), *stats, *_affine(x, weight, bias, (c,)), eps=float(eps))
    return reshape(y, x._v.shape)


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises over all but dimension 1; in training the running statistics, if given, move in place."""
    if not training:
        if eps < 0:
            raise ValueError(f"batch_norm: eps must not be negative, got {eps}; the default is 1e-5")
        if running_mean is running_var is None and not numel(tuple(input.shape)):
            return batch_statistics_norm(input, weight, bias, eps or 1.0)[0]  # of nothing, by nothing
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: evaluation needs running_mean and running_var")
        return batch_norm_inference(input, running_mean, running_var, weight, bias, eps)
    y, mean, var, unbiased = batch_statistics_norm(input, weight, bias, eps)
    _move("batch_norm", (running_mean, running_var), (mean, var), momentum, (1.0, unbiased))
    return y


def _move(name: str, held: tuple, batch: tuple, momentum: float, scales: tuple) -> None:
    """Moves the running statistics that are given towards the batch's, in place and unrecorded; nothing moves none."""
    given = [trio for trio in zip(held, batch, scales, strict=True) if trio[0] is not None and trio[1] is not None]
    if not given:
        return
    old, new, scales = zip(*given, strict=True)
    if any(tuple(o.shape) != tuple(t.shape) for o, t in zip(old, new, strict=True)):
        wanted, got = tuple(new[0].shape), [tuple(o.shape) for o in old]
        raise ShapeError(f"{name}: expected running statistics of shape {wanted}, got {', '.join(map(str, got))}")
    with running(ctx.top, False):
        for box, value in zip(
            old,
            follow(old, [cast(t, o._v.dtype) for t, o in zip(new, old, strict=True)], momentum, scales),
            strict=True,
        ):
            assign(box, value, name)


# ---- the others -------------------------------------------------------------------------------------------------------
def _trailing(name: str, x: Tensor, normalized_shape: Any, *affine: Any) -> tuple[int, ...]:
    """Returns ``normalized_shape`` as a tuple, which the last dimensions of x and each of ``affine`` must be."""
    shape = (normalized_shape,) if isinstance(normalized_shape, (int, np.integer)) else tuple(normalized_shape)
    if not shape or tuple(x._v.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
        raise ShapeError(f"{name}: normalized_shape {shape} does not match the last dimensions of {tuple(x.shape)}")
    for given in affine:
        if given is not None and tuple(given.shape) != shape:
            raise ShapeError(f"{name}: expected weight and bias of shape {shape}, got {tuple(given.shape)}")
    _require_dtype_of(name, x, *affine)
    return shape


def _require_several(name: str, x: Tensor, count: int) -> None:
    if count == 1:
        raise ShapeError(f"{name}: needs more than 1 value to normalise over, got an input of shape {tuple(x.shape)}")


def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Normalises over the last dimensions, which must be ``normalized_shape``, then computes ``* weight + bias``."""
    x = operand("layer_norm", input)
    shape = _trailing("layer_norm", x, normalized_shape, weight, bias)
    return _rows(layer_norm_p, x, shape, weight, bias, eps)


def _rows(prim: Primitive, x: Tensor, shape: tuple, weight: Any, bias: Any, eps: float) -> Tensor:
    """Returns layer or RMS norm of x over its last dimensions, of ``shape``."""
    size = numel(shape)
    rows = reshape(x, (x._v.size // size if size else 0, 1, size))
    given = _affine(x, weight, bias, (size,))
    return reshape(prim(rows, *given, eps=float(eps), residuals=recordable())[0], x._v.shape)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Normalises over each of ``num_groups`` runs of channels and over space (arXiv:1803.08494)."""
    x = operand("group_norm", input)
    n, c, s = _channels("group_norm", x, weight, bias)
    if num_groups < 1 or c % num_groups:
        raise ShapeError(f"group_norm: {c} channels are not divisible into {num_groups} groups")
    _require_several("group_norm", x, n * (c // num_groups) * s)  # over the batch, as torch counts
    affine = _affine(x, weight, bias, (c,))
    return group_norm_p(x, *affine, eps=float(eps), groups=int(num_groups), residuals=recordable())[0]


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalises over space, for each image and channel (arXiv:1607.08022).

    The running statistics, if given, follow the mean of the images' own in place, or are used with
    ``use_input_stats=False``.
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("instance_norm: use_input_stats=False needs running_mean and running_var")
        return batch_norm_inference(input, running_mean, running_var, weight, bias, eps)
    y, mean, var, unbiased = instance_statistics_norm(input, weight, bias, eps)
    _move("instance_norm", (running_mean, running_var), (mean, var), momentum, (1.0, unbiased))
    return y


def instance_statistics_norm(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """Returns ``(y, mean, biased variance, what makes it unbiased)``, the statistics averaged over the images."""
    x = operand("instance_norm", x)
    _, c, s = _channels("instance_norm", x, weight, bias)
    _require_several("instance_norm", x, s)
    affine = _affine(x, weight, bias, (c,))
    y, mean, _, var = group_norm_p(x, *affine, eps=float(eps), groups=c)
    return y, mean_(mean, 0), mean_(var, 0), s / max(s - 1, 1)


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """Returns ``x / sqrt(mean(x ** 2) + eps) * weight`` over the last dimensions (arXiv:1910.07467)."""
    x = operand("rms_norm", input)
    require_floating("rms_norm", x)
    shape = _trailing("rms_norm", x, normalized_shape, weight)
    eps = float(np.finfo(x._v.dtype).eps) if eps is None else eps
    return _rows(rms_norm_p, x, shape, weight, None, eps)
