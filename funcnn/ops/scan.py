"""Running reductions along one dimension: cumulative sums and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.ops.common import cast, normalize_dim, to_tensor
from funcnn.ops.creation import ones_like
from funcnn.ops.elementwise import mul
from funcnn.ops.join import cat, flip_p
from funcnn.ops.movement import reshape_p, slice_dim, unsqueeze
from funcnn.ops.reduce import sum_p


def _scan(name: str, loop: Callable, vjp: Callable, keeps: str) -> Primitive:
    prim = Primitive(
        name,
        shape=lambda x, dim: (x,),
        cpu=lambda ins, outs, dim: loop(ins[0], axis=dim, out=outs[0]),
        vjp=vjp,
        batch=lambda n, ins, batched, dim: prim(ins[0], dim=dim + 1),
        keeps=keeps,
    )
    return prim


def _reversed_sum(g: Tensor, dim: int) -> Tensor:
    return flip_p(cumsum_p(flip_p(g, dims=(dim,)), dim=dim), dims=(dim,))


cumsum_p = _scan("cumsum", np.cumsum, lambda g, ins, o, dim: (_reversed_sum(g, dim),), keeps="")


def _cumprod_vjp(g: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    """dx[k] = sum over i >= k of g[i] * prod(x[j], j <= i, j != k); products that leave k out are right at zeros too."""
    x = ins[0]
    size = x._v.shape[dim]
    parts = []
    for k in range(size):
        before = slice_dim(o, dim, k - 1, k) if k else ones_like(slice_dim(x, dim, 0, 1))
        tail = slice_dim(x, dim, k + 1, size)
        after = cumprod_p(cat([before, tail], dim), dim=dim)
        total = sum_p(mul(after, slice_dim(g, dim, k, size)), axes=(dim,))
        parts.append(unsqueeze(total, dim))
    return (cat(parts, dim) if parts else g,)


cumprod_p = _scan("cumprod", np.cumprod, _cumprod_vjp, keeps="io")


def _apply(prim: Primitive, input: Any, dim: int, dtype: Any) -> Tensor:
    x = to_tensor(input)
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    elif x._v.dtype.kind != "f":
        x = cast(x, dtypes.int64)
    dim = normalize_dim(prim.name, dim, x.ndim)
    if x.ndim == 0:
        return reshape_p(prim(reshape_p(x, shape=(1,)), dim=0), shape=())
    return prim(x, dim=dim)


def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """``y[i] = x[0] + ... + x[i]`` along ``dim``; integers add up as int64."""
    return _apply(cumsum_p, input, dim, dtype)


def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """``y[i] = x[0] * ... * x[i]`` along ``dim``; integers multiply as int64."""
    return _apply(cumprod_p, input, dim, dtype)
