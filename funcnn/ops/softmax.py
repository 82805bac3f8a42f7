"""Softmax and log-softmax along one dimension; their derivatives are compositions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu import softmax as kernels
from funcnn.ops.common import cast, normalize_dim, numel, operand
from funcnn.ops.elementwise import mul, neg, sub
from funcnn.ops.math import exp
from funcnn.ops.movement import reshape_p
from funcnn.ops.reduce import kept, sum_p


def rows(x: np.ndarray, dim: int) -> np.ndarray:
    """(outer, n, inner) with ``dim`` in the middle, contiguous."""
    shape = x.shape
    return np.ascontiguousarray(x).reshape(numel(shape[:dim]), shape[dim], numel(shape[dim + 1 :]))


def _along(name: str, kernel: Callable, vjp: Callable) -> Primitive:
    def run(ins: list, outs: list, dim: int) -> None:
        if ins[0].size:
            kernel(rows(ins[0], dim), rows(outs[0], dim))

    def shape(x: Any, dim: int) -> tuple:
        if x.dtype.kind != "f" or x.dtype.itemsize < 4:
            raise DTypeError(f"{name}: expected float32 or float64, got {x.dtype}; convert with .float()")
        return (x,)

    prim = Primitive(
        name,
        shape,
        cpu=run,
        vjp=vjp,
        batch=lambda n, ins, batched, dim: prim(ins[0], dim=dim + 1),
        keeps="o",
    )
    return prim


def total(x: Tensor, dim: int) -> Tensor:
    """The sum along ``dim``, kept as a 1."""
    return reshape_p(sum_p(x, axes=(dim,)), shape=kept(tuple(x._v.shape), (dim,)))


def _softmax_vjp(g: Tensor, ins: list, y: Tensor, dim: int) -> tuple:
    weighted = mul(g, y)
    return (sub(weighted, mul(y, total(weighted, dim))),)


softmax_p = _along("softmax", lambda x, y: kernels.softmax_forward(x, y), _softmax_vjp)
log_softmax_p = _along(
    "log_softmax",
    lambda x, y: kernels.log_softmax_forward(x, y),
    lambda g, ins, y, dim: (sub(g, mul(exp(y), total(g, dim))),),
)


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
    """``exp(input) / sum(exp(input))`` along ``dim``, without overflow."""
    return _apply(softmax_p, input, dim, dtype)


def log_softmax(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """``log(softmax(input))`` along ``dim``, without overflow or underflow."""
    return _apply(log_softmax_p, input, dim, dtype)


def softmin(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """``softmax(-input)``."""
    return softmax(neg(input), dim, dtype)
