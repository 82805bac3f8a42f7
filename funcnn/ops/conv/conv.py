"""Convolution over one to three spatial dimensions, transposed too: three primitives, closed under differentiation.

``conv`` is bilinear in input and weight, so its two gradients are each other's and ``conv``'s derivatives. All take
x (N, C, *S), w (K, C/groups, *A), y (N, K, *O), tuples of one number for each spatial dimension, and the precision
(``kernels/precision.py``) that was set when the convolution was called: its gradients have it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core.aval import Aval
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels import precision
from funcnn.kernels.cpu.conv.launch import lists as cpu
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched, merge_batch, merge_channels, split_batch, split_channels
from funcnn.ops.base.dims import per_dim
from funcnn.ops.base.promote import operand, require_kernel_float, require_same_dtype
from funcnn.ops.base.structure import sum_p
from funcnn.ops.movement.pad import pad
from funcnn.ops.movement.views import reshape, slice_dim


def out_sizes(space: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple) -> tuple[int, ...]:
    """``floor((in + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`` for each dimension."""
    return tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(space, kernel, stride, padding, dilation, strict=True)
    )


# ---- shape rules ------------------------------------------------------------------------------------------------------
def _require_floats(name: str, *operands: Any) -> None:
    require_same_dtype(name, *operands)
    require_kernel_float(name, operands[0], "float32 or float64 tensors")


def _conv_shape(
    x: Any, w: Any, *bias: Any, stride: tuple, padding: tuple, dilation: tuple, groups: int, precision: str
) -> tuple:
    name = f"conv{len(stride)}d"
    _require_floats(name, x, w)
    _require_bias(name, x, w.shape[0], bias)
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(
            f"{name}: weight of shape {tuple(w.shape)} needs an input with {w.shape[1] * groups} channels, got {tuple(x.shape)}"
        )
    if w.shape[0] % groups:
        raise ShapeError(f"{name}: {w.shape[0]} output channels are not divisible by groups={groups}")
    space = out_sizes(tuple(x.shape[2:]), tuple(w.shape[2:]), stride, padding, dilation)
    if any(s <= 0 for s in space):
        raise ShapeError(
            f"{name}: a kernel of {tuple(w.shape[2:])} with dilation {dilation} is larger than the input {tuple(x.shape[2:])} "
            f"padded by {padding}"
        )
    return (Aval((x.shape[0], w.shape[0], *space), x.dtype),)


def _require_bias(name: str, x: Any, channels: int, bias: tuple) -> None:
    """``bias``, if there is one, is a vector of one number for each output channel."""
    for b in bias:
        require_same_dtype(f"{name} (output and bias)", x, b)
        if tuple(b.shape) != (channels,):
            raise ShapeError(f"{name}: expected a bias of shape ({channels},), got {tuple(b.shape)}")


def _input_grad_shape(dy: Any, w: Any, *bias: Any, size: tuple, groups: int, **window: Any) -> tuple:
    require_same_dtype("conv_input_grad", dy, w)
    shape = (dy.shape[0], w.shape[1] * groups, *size)
    _require_bias(f"conv_transpose{len(size)}d", dy, shape[1], bias)
    (made,) = _conv_shape(Aval(shape, dy.dtype), w, groups=groups, **window)
    if tuple(made.shape) != tuple(dy.shape):
        raise ShapeError(f"conv_input_grad: cotangent {tuple(dy.shape)} for an output of {tuple(made.shape)}")
    return (Aval(shape, dy.dtype),)


def _weight_grad_shape(x: Any, dy: Any, size: tuple, groups: int, **window: Any) -> tuple:
    require_same_dtype("conv_weight_grad", x, dy)
    return (Aval((dy.shape[1], x.shape[1] // groups, *size), x.dtype),)


# ---- derivatives --------------------------------------------------------------------------------------------------------
def _bias_grad(g: Tensor, ins: list) -> tuple:
    """For an input that is the bias: the cotangent summed over all but its channels."""
    return () if len(ins) == 2 else (lambda: sum_p(g, axes=(0, *range(2, len(g._v.shape)))),)


def _conv_vjp(g: Tensor, ins: list, o: Tensor, **window: Any) -> tuple:
    x, w = ins[:2]
    return (
        lambda: conv_input_grad_p(g, w, size=tuple(x._v.shape[2:]), **window),
        lambda: conv_weight_grad_p(x, g, size=tuple(w._v.shape[2:]), **window),
        *_bias_grad(g, ins),
    )


def _input_grad_vjp(g: Tensor, ins: list, o: Tensor, size: tuple, **window: Any) -> tuple:
    dy, w = ins[:2]
    return (
        lambda: conv_p(g, w, **window),
        lambda: conv_weight_grad_p(g, dy, size=tuple(w._v.shape[2:]), **window),
        *_bias_grad(g, ins),
    )


def _weight_grad_vjp(g: Tensor, ins: list, o: Tensor, size: tuple, **window: Any) -> tuple:
    x, dy = ins
    return lambda: conv_input_grad_p(dy, g, size=tuple(x._v.shape[2:]), **window), lambda: conv_p(x, g, **window)


# ---- batching: a batch of weights is a batch of groups, outermost -----------------------------------------------------------
def _batch(prim: Callable) -> Callable:
    """The rule of ``conv`` and of ``conv_input_grad``: the batch goes into N, or with mapped weights into the groups."""

    def rule(n: int, ins: list, batched: list, groups: int, **window: Any) -> Tensor:
        if not any(batched[1:]):
            return split_batch(prim()(merge_batch(ins[0]), *ins[1:], groups=groups, **window), n)
        x, w, *bias = all_batched(n, ins, batched)
        bias = [merge_batch(b) for b in bias]
        return split_channels(prim()(merge_channels(x), merge_batch(w), *bias, groups=n * groups, **window), n)

    return rule


def _weight_grad_batch(n: int, ins: list, batched: list, groups: int, **window: Any) -> Tensor:
    x, dy = (merge_channels(t) for t in all_batched(n, ins, batched))
    return split_batch(conv_weight_grad_p(x, dy, groups=n * groups, **window), n)


conv_p = Primitive(
    "conv", _conv_shape, cpu.FORWARD, vjp=_conv_vjp, batch=_batch(lambda: conv_p), flops=costs.convolution
)
conv_input_grad_p = Primitive(
    "conv_input_grad",
    _input_grad_shape,
    cpu.INPUT_GRAD,
    vjp=_input_grad_vjp,
    batch=_batch(lambda: conv_input_grad_p),
    flops=costs.convolution_input_grad,
)
conv_weight_grad_p = Primitive(
    "conv_weight_grad",
    _weight_grad_shape,
    cpu.WEIGHT_GRAD,
    vjp=_weight_grad_vjp,
    batch=_weight_grad_batch,
    flops=costs.convolution_weight_grad,
)


# ---- public -------------------------------------------------------------------------------------------------------------
def _prepared(name: str, n: int, input: Any, weight: Any, groups: int) -> tuple[Tensor, Tensor, bool]:
    """Input with a batch dimension, weight, and whether the batch dimension was added."""
    x = input if isinstance(input, Tensor) else operand(name, input)
    w = weight if isinstance(weight, Tensor) else operand(name, weight)
    rank = len(x._v.shape)
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"{name}: groups must be a positive int, got {groups!r}")
    if len(w._v.shape) != n + 2 or 0 in w._v.shape[2:]:
        raise ShapeError(
            f"{name}: expected a weight of {n + 2} dimensions with a kernel of at least 1, got shape {tuple(w.shape)}"
        )
    if rank not in (n + 1, n + 2):
        raise ShapeError(
            f"{name}: expected an input of {n + 2} dimensions (N, C, ...) or {n + 1} (C, ...), got shape {tuple(x.shape)}"
        )
    single = rank == n + 1
    return (reshape(x, (1, *x._v.shape)) if single else x), w, single


def _window(stride: tuple, padding: tuple, dilation: tuple, groups: int) -> dict[str, Any]:
    """The parameters that all three primitives have, the precision that is set now among them."""
    return {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": int(groups), "precision": precision.conv,
    }  # fmt: skip


def _with_bias(name: str, bias: Any) -> tuple[Tensor, ...]:
    return () if bias is None else (bias if isinstance(bias, Tensor) else operand(name, bias),)


def _convolve(
    n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    name = f"conv{n}d"
    x, w, single = _prepared(name, n, input, weight, groups)
    stride, dilation = per_dim(name, "stride", stride, n), per_dim(name, "dilation", dilation, n)
    if isinstance(padding, str):
        x, padding = _padded(name, x, w, stride, padding, dilation)
    window = _window(stride, per_dim(name, "padding", padding, n, least=0), dilation, groups)
    y = conv_p(x, w, *_with_bias(name, bias), **window)
    return reshape(y, y._v.shape[1:]) if single else y


def _padded(name: str, x: Tensor, w: Tensor, stride: tuple, padding: str, dilation: tuple) -> tuple[Tensor, Any]:
    """The input and the padding that a word stands for; where that differs on the two sides, the input has the rest."""
    if padding == "valid":
        return x, 0
    if padding != "same":
        raise ValueError(f"{name}: padding must be ints, 'same' or 'valid', got {padding!r}")
    if any(s != 1 for s in stride):
        raise ValueError(f"{name}: padding='same' needs stride 1, got {stride}")
    totals = [d * (k - 1) for d, k in zip(dilation, w._v.shape[2:], strict=True)]
    if any(t % 2 for t in totals):
        x = pad(x, [side for t in reversed(totals) for side in (0, t % 2)])
    return x, tuple(t // 2 for t in totals)


def _transpose(
    n: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    name = f"conv_transpose{n}d"
    x, w, single = _prepared(name, n, input, weight, groups)
    stride, dilation = per_dim(name, "stride", stride, n), per_dim(name, "dilation", dilation, n)
    padding = per_dim(name, "padding", padding, n, least=0)
    extra = per_dim(name, "output_padding", output_padding, n, least=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(f"{name}: output_padding {extra} must be smaller than stride {stride} or dilation {dilation}")
    _require_floats(name, x, w)
    if w._v.shape[0] % groups:
        raise ShapeError(f"{name}: {w._v.shape[0]} input channels are not divisible by groups={groups}")
    if x._v.shape[1] != w._v.shape[0]:
        raise ShapeError(
            f"{name}: weight of shape {tuple(w.shape)} needs an input with {w._v.shape[0]} channels, got {tuple(x.shape)}"
        )
    size = tuple(
        (t - 1) * s - 2 * p + d * (k - 1) + e + 1
        for s, t, p, d, k, e in zip(stride, x._v.shape[2:], padding, dilation, w._v.shape[2:], extra, strict=True)
    )
    if any(s < 0 for s in size):
        raise ShapeError(
            f"{name}: padding {padding} leaves an output of {size} for an input of shape {tuple(x.shape)} "
            f"and a kernel of {tuple(w._v.shape[2:])}"
        )
    x = _lengthened(x, [(e + (not s)) // step for e, s, step in zip(extra, size, stride, strict=True)])
    window = _window(stride, padding, dilation, groups)
    y = conv_input_grad_p(x, w, *_with_bias(name, bias), size=tuple(s or 1 for s in size), **window)
    for dim in [dim for dim, s in enumerate(size, 2) if not s]:  # one pixel was made, and none is left
        y = slice_dim(y, dim, 0, 0)
    return reshape(y, y._v.shape[1:]) if single else y


def _lengthened(x: Tensor, rows: list) -> Tensor:
    """x with rows of zeros behind it: each is worth a stride of ``output_padding``."""
    return pad(x, [width for more in rows[::-1] for width in (0, more)]) if any(rows) else x


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """(N, C, L) with weight (K, C/groups, kernel) to (N, K, L'). See ``conv2d``."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """(N, C, H, W) or (C, H, W) with weight (K, C/groups, kh, kw) to (N, K, H', W').

    padding: an int or one for each dimension, added on both sides; "same" (stride 1) or "valid".
    Raises ``ShapeError`` for channels or sizes that do not fit, ``DTypeError`` for mixed dtypes.
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """(N, C, D, H, W) with weight (K, C/groups, kd, kh, kw) to (N, K, D', H', W'). See ``conv2d``."""
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """(N, C, L) with weight (C, K/groups, kernel): the gradient of ``conv1d`` in its input, as an operation."""
    return _transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """(N, C, H, W) with weight (C, K/groups, kh, kw): the gradient of ``conv2d`` in its input, as an operation."""
    return _transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """(N, C, D, H, W) with weight (C, K/groups, kd, kh, kw): the gradient of ``conv3d`` in its input, as an operation."""
    return _transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
