"""Max and average pooling over one to three spatial dimensions, with their gradients as primitives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor, constant
from funcnn.kernels.cpu import pool as kernels
from funcnn.ops.common import all_batched, fold, numel, operand, to_tensor, unfold_batch
from funcnn.ops.conv import per_dim
from funcnn.ops.creation import zeros
from funcnn.ops.elementwise import stop_gradient, true_divide, where
from funcnn.ops.index import gather, index_select
from funcnn.ops.movement import expand, reshape, unsqueeze
from funcnn.ops.reduce import argmax
from funcnn.ops.reduce import sum as sum_
from funcnn.ops.scatter import scatter


def pooled_sizes(
    space: tuple, size: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool
) -> tuple[int, ...]:
    """Output sizes; with ``ceil_mode`` a last window may run over the edge, if it starts inside input or left padding."""
    out = []
    for s, k, t, p, d in zip(space, size, stride, padding, dilation, strict=True):
        reach = s + 2 * p - d * (k - 1) - 1
        count = (-(-reach // t) if ceil_mode else reach // t) + 1
        out.append(count - 1 if ceil_mode and (count - 1) * t >= s + p else count)
    return tuple(out)


def _three(value: tuple, fill: int) -> tuple[int, ...]:
    return (fill,) * (3 - len(value)) + tuple(value)


def _images(array: np.ndarray) -> np.ndarray:
    """(N, C, *S) as contiguous (N*C, D, H, W)."""
    n, c, *space = array.shape
    return np.ascontiguousarray(array).reshape(n * c, *_three(tuple(space), 1))


# ---- max pooling ------------------------------------------------------------------------------------------------------
def _max_shape(x: Any, size: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool) -> tuple:
    space = pooled_sizes(tuple(x.shape[2:]), size, stride, padding, dilation, ceil_mode)
    _require_outputs(f"max_pool{len(size)}d", x, space, size)
    shape = (*x.shape[:2], *space)
    return Aval(shape, x.dtype), Aval(shape, dtypes.int64)


def _require_outputs(name: str, x: Any, space: tuple, size: tuple) -> None:
    if any(s <= 0 for s in space):
        raise ShapeError(
            f"{name}: a window of {size} does not fit an input of shape {tuple(x.shape)}: output would be {space}"
        )


def _max(ins: list, outs: list, size: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool) -> None:
    if outs[0].size:
        where = _three(size, 1), _three(stride, 1), _three(padding, 0), _three(dilation, 1)
        kernels.max_pool_forward(_images(ins[0]), _images(outs[0]), _images(outs[1]), *where)


def _max_vjp(g: list, ins: list, outs: list, **where: Any) -> tuple:
    return (lambda: pool_scatter_p(g[0], outs[1], size=tuple(ins[0]._v.shape[2:])),)


def _max_batch(n: int, ins: list, batched: list, **where: Any) -> list:
    return [unfold_batch(out, n) for out in max_pool_p(fold(ins[0]), **where)]


max_pool_p = Primitive("max_pool", _max_shape, _max, vjp=_max_vjp, batch=_max_batch, keeps="o", multiple=True)


def _scatter(ins: list, outs: list, size: tuple) -> None:
    kernels.pool_scatter(_images(ins[0]), _images(ins[1]), _images(outs[0]))


def _gather(ins: list, outs: list) -> None:
    kernels.pool_gather(_images(ins[0]), _images(ins[1]), _images(outs[0]))


def _folded(prim: Callable, n: int, ins: list, batched: list, **params: Any) -> Tensor:
    return unfold_batch(prim(*[fold(t) for t in all_batched(n, ins, batched)], **params), n)


pool_scatter_p = Primitive(
    "pool_scatter",
    shape=lambda dy, index, size: (Aval((*dy.shape[:2], *size), dy.dtype),),
    cpu=_scatter,
    vjp=lambda g, ins, o, size: (lambda: pool_gather_p(g, ins[1]), None),
    batch=lambda n, ins, batched, size: _folded(pool_scatter_p, n, ins, batched, size=size),
)
pool_gather_p = Primitive(
    "pool_gather",
    shape=lambda x, index: (Aval(tuple(index.shape), x.dtype),),
    cpu=_gather,
    vjp=lambda g, ins, o: (lambda: pool_scatter_p(g, ins[1], size=tuple(ins[0]._v.shape[2:])), None),
    batch=lambda n, ins, batched: _folded(pool_gather_p, n, ins, batched),
)


# ---- average pooling --------------------------------------------------------------------------------------------------
def _avg_shape(
    x: Any, size: tuple, stride: tuple, padding: tuple, ceil_mode: bool, include: bool, divisor: int
) -> tuple:
    space = pooled_sizes(tuple(x.shape[2:]), size, stride, padding, (1,) * len(size), ceil_mode)
    _require_outputs(f"avg_pool{len(size)}d", x, space, size)
    return (Aval((*x.shape[:2], *space), x.dtype),)


def _avg(
    ins: list, outs: list, size: tuple, stride: tuple, padding: tuple, ceil_mode: bool, include: bool, divisor: int
) -> None:
    if outs[0].size:
        where = _three(size, 1), _three(stride, 1), _three(padding, 0)
        kernels.avg_pool_forward(_images(ins[0]), _images(outs[0]), *where, include, divisor)


def _avg_grad(ins: list, outs: list, space: tuple, size: tuple, stride: tuple, padding: tuple, ceil_mode: bool,
              include: bool, divisor: int) -> None:  # fmt: skip
    where = _three(size, 1), _three(stride, 1), _three(padding, 0)
    kernels.avg_pool_grad(_images(ins[0]), _images(outs[0]), *where, include, divisor)


avg_pool_p = Primitive(
    "avg_pool",
    _avg_shape,
    cpu=_avg,
    vjp=lambda g, ins, o, **where: (avg_pool_grad_p(g, space=tuple(ins[0]._v.shape[2:]), **where),),
    batch=lambda n, ins, batched, **where: _folded(avg_pool_p, n, ins, batched, **where),
    keeps="",
)
avg_pool_grad_p = Primitive(
    "avg_pool_grad",
    shape=lambda dy, space, **where: (Aval((*dy.shape[:2], *space), dy.dtype),),
    cpu=_avg_grad,
    vjp=lambda g, ins, o, space, **where: (avg_pool_p(g, **where),),
    batch=lambda n, ins, batched, **where: _folded(avg_pool_grad_p, n, ins, batched, **where),
    keeps="",
)


# ---- public -----------------------------------------------------------------------------------------------------------
def _require_floats(name: str, x: Tensor) -> None:
    if x._v.dtype.kind != "f" or x._v.dtype.itemsize < 4:
        raise DTypeError(f"{name}: expected float32 or float64, got {x.dtype}; convert with .float()")


def _require_rank(name: str, n: int, x: Tensor) -> None:
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"{name}: expected an input of {n + 2} dimensions (N, C, ...) or {n + 1} (C, ...), got shape {tuple(x.shape)}"
        )


def _prepared(name: str, n: int, input: Any, kernel_size: Any, stride: Any, padding: Any) -> tuple:
    x = operand(name, input)
    _require_rank(name, n, x)
    _require_floats(name, x)
    size = per_dim(name, "kernel_size", kernel_size, n)
    step = size if stride is None or stride == () else per_dim(name, "stride", stride, n)
    border = per_dim(name, "padding", padding, n, least=0)
    if any(2 * p > k for p, k in zip(border, size, strict=True)):
        raise ShapeError(f"{name}: padding {border} must be at most half of kernel_size {size}")
    single = x.ndim == n + 1
    return (reshape(x, (1, *x._v.shape)) if single else x), size, step, border, single


def _max_pool(n: int, doc: str) -> Callable:
    name = f"max_pool{n}d"

    def pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:  # fmt: skip
        x, size, step, border, single = _prepared(name, n, input, kernel_size, stride, padding)
        spread = per_dim(name, "dilation", dilation, n)
        outs = max_pool_p(x, size=size, stride=step, padding=border, dilation=spread, ceil_mode=bool(ceil_mode))
        y, index = (reshape(out, out._v.shape[1:]) if single else out for out in outs)
        return (y, index) if return_indices else y

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = doc
    return pool


def _avg_pool(n: int, doc: str) -> Callable:
    name = f"avg_pool{n}d"

    def pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Tensor:  # fmt: skip
        x, size, step, border, single = _prepared(name, n, input, kernel_size, stride, padding)
        if divisor_override == 0:
            raise ValueError(f"{name}: divisor_override must not be 0")
        y = avg_pool_p(x, size=size, stride=step, padding=border, ceil_mode=bool(ceil_mode),
                       include=bool(count_include_pad), divisor=divisor_override or 0)  # fmt: skip
        return reshape(y, y._v.shape[1:]) if single else y

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = doc
    return pool


_MAX = (
    "The largest of each window of (N, C, *spatial); with ``return_indices`` also its flat index. Padding never wins."
)
_AVG = "The mean of each window of (N, C, *spatial), padded with zeros that ``count_include_pad`` counts or not."
max_pool1d, max_pool2d, max_pool3d = (_max_pool(n, _MAX) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (_avg_pool(n, _AVG) for n in (1, 2, 3))


# ---- adaptive pooling ---------------------------------------------------------------------------------------------------
def _cells(space: tuple, out: tuple) -> tuple[np.ndarray, np.ndarray]:
    """For each output pixel the flat indices of its window, (outputs, widest window), and which of them are in it.

    Window i of s pixels over o outputs is floor(i s / o) to ceil((i + 1) s / o); short ones repeat their last pixel.
    """
    flat, inside = np.zeros((1, 1), np.int64), np.ones((1, 1), np.bool_)
    for s, o in zip(space, out, strict=True):
        start, end = np.arange(o) * s // o, -(-np.arange(1, o + 1) * s // o)
        index = start[:, None] + np.arange((end - start).max())
        within = index < end[:, None]
        index = np.minimum(index, end[:, None] - 1)
        shape = flat.shape[0] * o, flat.shape[1] * index.shape[1]
        flat = (flat[:, None, :, None] * s + index[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & within[None, :, None, :]).reshape(shape)
    return flat, inside


def _windows(x: Tensor, flat: np.ndarray) -> Tensor:
    """(N, C, *S) as the windows of each output, (N, C, outputs, widest window)."""
    n, c = x._v.shape[:2]
    pixels = reshape(x, (n, c, numel(tuple(x._v.shape[2:]))))
    return reshape(index_select(pixels, 2, constant(flat.reshape(-1))), (n, c, *flat.shape))


def _adaptive_prepared(name: str, n: int, input: Any, output_size: Any) -> tuple[Tensor, tuple, bool]:
    x = to_tensor(input)
    _require_floats(name, x)
    _require_rank(name, n, x)
    space = tuple(x._v.shape[x.ndim - n :])
    if 0 in space:
        raise ShapeError(f"{name}: expected at least one pixel in each dimension, got shape {tuple(x.shape)}")
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(sizes) == n:
        sizes = tuple(s if o is None else o for s, o in zip(space, sizes, strict=True))
    single = x.ndim == n + 1
    return reshape(x, (1, *x._v.shape)) if single else x, per_dim(name, "output_size", sizes, n), single


def _regular(x: Tensor, out: tuple) -> tuple | None:
    """The window, also the stride, that does the same where every window has one size."""
    space = tuple(x._v.shape[2:])
    if any(s % o for s, o in zip(space, out, strict=True)):
        return None
    return tuple(s // o for s, o in zip(space, out, strict=True))


def _adaptive_avg(n: int, doc: str) -> Callable:
    name = f"adaptive_avg_pool{n}d"

    def pool(input: Any, output_size: Any) -> Tensor:
        x, out, single = _adaptive_prepared(name, n, input, output_size)
        size = _regular(x, out)
        if size is not None:
            y = avg_pool_p(x, size=size, stride=size, padding=(0,) * n, ceil_mode=False, include=True, divisor=0)
        else:
            flat, inside = _cells(tuple(x._v.shape[2:]), out)
            counts = constant(inside.sum(1).astype(x._v.dtype))
            y = true_divide(sum_(where(constant(inside), _windows(x, flat), 0.0), -1), counts)
            y = reshape(y, (*x._v.shape[:2], *out))
        return reshape(y, y._v.shape[1:]) if single else y

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = doc
    return pool


def _adaptive_max(n: int, doc: str) -> Callable:
    name = f"adaptive_max_pool{n}d"

    def pool(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        x, out, single = _adaptive_prepared(name, n, input, output_size)
        size = _regular(x, out)
        if size is not None:
            outs = max_pool_p(x, size=size, stride=size, padding=(0,) * n, dilation=(1,) * n, ceil_mode=False)
        else:
            flat, _ = _cells(tuple(x._v.shape[2:]), out)
            best = unsqueeze(argmax(_windows(stop_gradient(x), flat), -1), 3)
            index = gather(expand(constant(flat), (*x._v.shape[:2], *flat.shape)), 3, best)
            index = reshape(index, (*x._v.shape[:2], *out))
            outs = [pool_gather_p(x, index), index]
        y, index = (reshape(t, t._v.shape[1:]) if single else t for t in outs)
        return (y, index) if return_indices else y

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = doc
    return pool


def _max_unpool(n: int, doc: str) -> Callable:
    name = f"max_unpool{n}d"

    def pool(
        input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
    ) -> Tensor:
        x, size, step, border, single = _prepared(name, n, input, kernel_size, stride, padding)
        index = to_tensor(indices)
        if tuple(index._v.shape) != tuple(to_tensor(input)._v.shape):
            raise ShapeError(f"{name}: expected indices of shape {tuple(x.shape)}, got {tuple(index.shape)}")
        space = tuple((s - 1) * t - 2 * p + k for s, t, p, k in zip(x._v.shape[2:], step, border, size, strict=True))
        if output_size is not None:
            wanted = tuple(int(s) for s in output_size)[-n:]
            if len(wanted) != n or any(abs(s - d) >= t for s, d, t in zip(wanted, space, step, strict=True)):
                raise ShapeError(f"{name}: output_size {wanted} must be within the stride {step} of {space}")
            space = wanted
        batch, c = x._v.shape[:2]
        flat = (batch, c, numel(tuple(x._v.shape[2:])))
        base = zeros((batch, c, numel(space)), dtype=x._v.dtype)
        y = reshape(scatter(base, 2, reshape(index, flat), reshape(x, flat)), (batch, c, *space))
        return reshape(y, y._v.shape[1:]) if single else y

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = doc
    return pool


_ADAPTIVE = "of (N, C, *spatial) in ``output_size`` windows that cover it; None keeps a dimension's size."
_UNPOOL = "Each value where ``max_poolNd(..., return_indices=True)`` found it, zeros elsewhere. Raises ``IndexError``."
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _adaptive_avg(n, f"The mean {_ADAPTIVE}") for n in (1, 2, 3)
)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _adaptive_max(n, f"The largest {_ADAPTIVE}") for n in (1, 2, 3)
)
max_unpool1d, max_unpool2d, max_unpool3d = (_max_unpool(n, _UNPOOL) for n in (1, 2, 3))
