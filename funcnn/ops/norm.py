"""Batch, layer, group, instance and RMS normalization, on one primitive that normalises (N, C, S) over N and S."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core.aval import Aval
from funcnn.core.context import ctx, running
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.mutation import assign
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu import norm as kernels
from funcnn.ops.common import all_batched, cast, numel, operand, require_same_dtype, to_tensor
from funcnn.ops.elementwise import add, mul, neg, square, sub, true_divide
from funcnn.ops.math import rsqrt
from funcnn.ops.movement import movedim, reshape
from funcnn.ops.reduce import mean as mean_
from funcnn.ops.reduce import sum_p


# ---- the primitive ----------------------------------------------------------------------------------------------------
def _normalize_shape(x: Any, eps: float) -> tuple:
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:
        raise DTypeError(f"normalization: expected float32 or float64, got {x.dtype}; convert with .float()")
    stat = Aval((x.shape[1],), x.dtype)
    return Aval(tuple(x.shape), x.dtype), stat, stat, stat


def _normalize(ins: list, outs: list, eps: float) -> None:
    kernels.normalize_forward(np.ascontiguousarray(ins[0]), *outs, eps)


def per_channel(t: Tensor) -> Tensor:
    """(C,) as (C, 1), to meet (N, C, S)."""
    return reshape(t, (*t._v.shape, 1))


def _normalize_vjp(g: list, ins: list, outs: list, eps: float) -> tuple:
    y, _, rstd, _ = outs
    n, c, s = ins[0]._v.shape
    share = 1.0 / max(n * s, 1)

    def dx() -> Tensor | None:
        parts = [] if g[0] is None else [normalize_grad_p(g[0], y, rstd)]
        if g[1] is not None:
            parts.append(mul(per_channel(g[1]), share))
        spread = [] if g[3] is None else [g[3]]
        if g[2] is not None:
            spread.append(mul(mul(g[2], mul(rstd, square(rstd))), -0.5))
        for dvar in spread:
            parts.append(mul(true_divide(y, per_channel(rstd)), per_channel(mul(dvar, 2.0 * share))))
        total = parts[0]
        for part in parts[1:]:
            total = add(total, part)
        return total if tuple(total._v.shape) == (n, c, s) else add(mul(y, 0.0), total)

    return (dx,)


def _to_channels(t: Tensor) -> Tensor:
    """(B, N, C, S) to (N, B*C, S)."""
    b, n, c, s = t._v.shape
    return reshape(movedim(t, 0, 1), (n, b * c, s))


def _from_channels(t: Tensor, b: int) -> Tensor:
    n, c, s = t._v.shape
    return movedim(reshape(t, (n, b, c // b, s)), 1, 0)


def _normalize_batch(n: int, ins: list, batched: list, eps: float) -> list:
    y, *stats = normalize_p(_to_channels(ins[0]), eps=eps)
    return [_from_channels(y, n), *[reshape(stat, (n, stat._v.shape[0] // n)) for stat in stats]]


normalize_p = Primitive(
    "normalize", _normalize_shape, _normalize, vjp=_normalize_vjp, batch=_normalize_batch, keeps="o", multiple=True
)


def _grad_shape(dy: Any, y: Any, rstd: Any) -> tuple:
    require_same_dtype("normalize_grad", dy, y, rstd)
    return (Aval(tuple(dy.shape), dy.dtype),)


def _grad(ins: list, outs: list) -> None:
    dy, y, rstd = (np.ascontiguousarray(a) for a in ins)
    kernels.normalize_grad(dy, y, rstd, outs[0])


def _channel_mean(t: Tensor) -> Tensor:
    n, _, s = t._v.shape
    return per_channel(mul(sum_p(t, axes=(0, 2)), 1.0 / max(n * s, 1)))


def _grad_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    """The derivatives of ``rstd * (dy - mean(dy) - y * mean(dy * y))``; it is its own transpose in dy."""
    dy, y, rstd = ins

    def d_y() -> Tensor:
        both = add(mul(g, _channel_mean(mul(dy, y))), mul(dy, _channel_mean(mul(g, y))))
        return neg(mul(both, per_channel(rstd)))

    def d_rstd() -> Tensor:
        inner = sub(sub(dy, _channel_mean(dy)), mul(y, _channel_mean(mul(dy, y))))
        return sum_p(mul(g, inner), axes=(0, 2))

    return lambda: normalize_grad_p(g, y, rstd), d_y, d_rstd


def _grad_batch(n: int, ins: list, batched: list) -> Tensor:
    dy, y, rstd = all_batched(n, ins, batched)
    flat = reshape(rstd, (n * rstd._v.shape[1],))
    return _from_channels(normalize_grad_p(_to_channels(dy), _to_channels(y), flat), n)


normalize_grad_p = Primitive("normalize_grad", _grad_shape, _grad, vjp=_grad_vjp, batch=_grad_batch)


# ---- batch norm -------------------------------------------------------------------------------------------------------
def _affine(y: Tensor, weight: Any, bias: Any, shape: tuple) -> Tensor:
    """``y * weight + bias`` with both reshaped to ``shape``."""
    if weight is not None:
        y = mul(y, reshape(weight, shape))
    return y if bias is None else add(y, reshape(bias, shape))


def _require_dtype_of(name: str, x: Tensor, *others: Any) -> None:
    require_same_dtype(name, x, *[other for other in others if other is not None])


def _channels(name: str, x: Tensor, *stats: Any) -> tuple[int, ...]:
    """The shape (C, 1, ...) of per-channel values for x (N, C, ...), which the given ones must have C of."""
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 dimensions (N, C, ...), got shape {tuple(x.shape)}")
    for stat in stats:
        if stat is not None and tuple(stat.shape) != (x._v.shape[1],):
            raise ShapeError(f"{name}: expected values for {x._v.shape[1]} channels, got shape {tuple(stat.shape)}")
    return (x._v.shape[1], *(1,) * (x.ndim - 2))


def batch_norm_training(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``(y, mean, unbiased variance)`` with the batch's own statistics. Raises ``ShapeError`` for one value per channel."""
    x = operand("batch_norm", x)
    shape = _channels("batch_norm", x, weight, bias)
    _require_dtype_of("batch_norm", x, weight, bias)
    n, c, *space = x._v.shape
    count = n * numel(tuple(space))
    if count < 2:
        raise ShapeError(
            f"batch_norm: training needs more than 1 value per channel, got an input of shape {tuple(x.shape)}"
        )
    y, mean, _, var = normalize_p(reshape(x, (n, c, numel(tuple(space)))), eps=float(eps))
    return _affine(reshape(y, x._v.shape), weight, bias, shape), mean, mul(var, count / (count - 1))


def batch_norm_inference(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with given statistics."""
    x = operand("batch_norm", x)
    shape = _channels("batch_norm", x, mean, var, weight, bias)
    _require_dtype_of("batch_norm", x, mean, var, weight, bias)
    scale = rsqrt(add(to_tensor(var), eps))
    scale = scale if weight is None else mul(scale, weight)
    return _affine(sub(x, reshape(mean, shape)), scale, bias, shape)


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Batch normalization over all but dimension 1; in training the running statistics, if given, move in place."""
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: evaluation needs running_mean and running_var")
        return batch_norm_inference(input, running_mean, running_var, weight, bias, eps)
    y, mean, var = batch_norm_training(input, weight, bias, eps)
    _follow("batch_norm", (running_mean, running_var), (mean, var), momentum)
    return y


def _follow(name: str, held: tuple, batch: tuple, momentum: float) -> None:
    """Move the running statistics that are given towards the batch's, in place and unrecorded."""
    with running(ctx.top, False):
        for old, new in zip(held, batch, strict=True):
            if old is not None:
                assign(old, add(old, mul(sub(cast(new, old._v.dtype), old), momentum)), name)


# ---- the others -------------------------------------------------------------------------------------------------------
def _rows(x: Tensor, rows: int, cols: int, eps: float) -> Tensor:
    """Each of ``rows`` runs of ``cols`` elements normalised, in the shape of x."""
    return reshape(normalize_p(reshape(x, (1, rows, cols)), eps=float(eps))[0], x._v.shape)


def _trailing(name: str, x: Tensor, normalized_shape: Any, *affine: Any) -> tuple[int, ...]:
    """``normalized_shape`` as a tuple, which the last dimensions of x and each of ``affine`` must be."""
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
    """Normalised over the last dimensions, which must be ``normalized_shape``, then ``* weight + bias``."""
    x = operand("layer_norm", input)
    shape = _trailing("layer_norm", x, normalized_shape, weight, bias)
    cols = numel(shape)
    return _affine(_rows(x, x._v.size // cols if cols else 0, cols, eps), weight, bias, shape)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Normalised over each of ``num_groups`` runs of channels and over space (arXiv:1803.08494)."""
    x = operand("group_norm", input)
    shape = _channels("group_norm", x, weight, bias)
    _require_dtype_of("group_norm", x, weight, bias)
    n, c, *space = x._v.shape
    if num_groups < 1 or c % num_groups:
        raise ShapeError(f"group_norm: {c} channels are not divisible into {num_groups} groups")
    _require_several("group_norm", x, n * (c // num_groups) * numel(tuple(space)))  # over the batch, as torch counts
    y = _rows(x, n * num_groups, c // num_groups * numel(tuple(space)), eps)
    return _affine(y, weight, bias, shape)


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalised over space, for each image and channel (arXiv:1607.08022).

    The running statistics, if given, follow the mean of the images' own in place, or are used with
    ``use_input_stats=False``.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = operand("instance_norm", input)
    shape = _channels("instance_norm", x, weight, bias)
    _require_dtype_of("instance_norm", x, weight, bias)
    n, c, *space = x._v.shape
    count = numel(tuple(space))
    _require_several("instance_norm", x, count)
    y, mean, _, var = normalize_p(reshape(x, (1, n * c, count)), eps=float(eps))
    if running_mean is not None or running_var is not None:
        unbiased = mul(var, count / max(count - 1, 1))
        batch = tuple(mean_(reshape(stat, (n, c)), 0) for stat in (mean, unbiased))
        _follow("instance_norm", (running_mean, running_var), batch, momentum)
    return _affine(reshape(y, x._v.shape), weight, bias, shape)


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """``x / sqrt(mean(x ** 2) + eps) * weight`` over the last dimensions (arXiv:1910.07467)."""
    x = operand("rms_norm", input)
    if x._v.dtype.kind != "f":
        raise DTypeError(f"rms_norm: expected a floating-point tensor, got {x.dtype}; convert with .float()")
    shape = _trailing("rms_norm", x, normalized_shape, weight)
    eps = float(np.finfo(x._v.dtype).eps) if eps is None else eps
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    y = mul(x, rsqrt(add(mean_(square(x), dims, True), eps)))
    return y if weight is None else mul(y, weight)
