"""Running reductions along one dimension: cumulative sums, products, extrema and log-sums of exponentials; and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.reduce import functions
from funcnn.kernels.cpu.reduce import scan as kernels
from funcnn.kernels.cpu.reduce.running import affine, latest, running
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import normalize_dim, numel
from funcnn.ops.base.promote import floating, to_tensor
from funcnn.ops.base.reduction import ValuesIndices, dropped
from funcnn.ops.base.structure import cast, permute_p, reshape_p
from funcnn.ops.elementwise.arithmetic import mul, sub
from funcnn.ops.elementwise.comparison import eq
from funcnn.ops.elementwise.math import exp
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.along import gather
from funcnn.ops.movement.join import cat, flip
from funcnn.ops.movement.views import clone, slice_dim
from funcnn.ops.reduce.declare import WIDE, reduction
from funcnn.ops.tensor.creation import ones_like, zeros_like


def _scan(name: str, ways: tuple, vjp: Callable | None, keeps: str, dtype: Any = None, flops: float = 1) -> Primitive:
    """Makes a primitive along ``dim`` that keeps the shape."""
    prim = Primitive(
        name,
        shape=lambda x, dim, **params: (Aval(tuple(x.shape), dtype or x.dtype),),
        cpu=ways,
        vjp=vjp,
        batch=lambda n, ins, batched, dim, **params: prim(ins[0], dim=dim + 1, **params),
        keeps=keeps,
        flops=costs.each(flops),
    )
    return prim


def _later(t: Tensor, edge: Callable, dim: int) -> Tensor:
    """Returns ``t`` one step later along ``dim``: its last element leaves, ``edge`` (ones or zeros) enters in front."""
    return cat([edge(slice_dim(t, dim, 0, 1)), slice_dim(t, dim, 0, t._v.shape[dim] - 1)], dim)


# ---- the affine recurrence --------------------------------------------------------------------------------------------
def _affine_vjp(g: Tensor, ins: list, o: Tensor, dim: int, backwards: bool = False) -> tuple:
    if not o._v.size:
        return g, g
    r = affine_scan_p(ins[0], g, dim=dim, backwards=not backwards)
    # forwards da[t] = r[t] s[t - 1], backwards da[t + 1] = r[t] s[t + 1]
    return lambda: mul(_later(r, zeros_like, dim), o) if backwards else mul(r, _later(o, zeros_like, dim)), r


# s[t] = a[t] s[t - 1] + b[t], s[-1] = 0, and backwards s[t] = a[t + 1] s[t + 1] + b[t], s[n] = 0. Each is the other's transpose
# in b, so the two are closed under differentiation, and under it the products stay exact at zeros.
affine_scan_p = Primitive(
    "affine_scan",
    shape=lambda a, b, dim, backwards=False: (b,),
    cpu=affine,
    vjp=_affine_vjp,
    batch=lambda n, ins, batched, dim, **params: affine_scan_p(*all_batched(n, ins, batched), dim=dim + 1, **params),
    keeps="io",
    flops=costs.each(2),
)


# ---- sums and products ------------------------------------------------------------------------------------------------
cumsum_p = _scan(
    "cumsum",
    running(np.add, kernels.running_sum),
    lambda g, ins, o, dim, backwards=False: (cumsum_p(g, dim=dim, backwards=not backwards),),
    keeps="",
)


def _cumprod_vjp(g: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    """Returns prod(x[j], j < k) * sum over i >= k of g[i] * prod(x[j], k < j <= i): no division, so right at zeros too."""
    if not o._v.size:
        return (g,)
    return (mul(_later(o, ones_like, dim), affine_scan_p(ins[0], g, dim=dim, backwards=True)),)


cumprod_p = _scan("cumprod", running(np.multiply, kernels.running_product), _cumprod_vjp, keeps="io")


def _apply(prim: Primitive, x: Tensor, dim: int) -> Tensor:
    dim = normalize_dim(prim.name, dim, x.ndim)
    if x.ndim == 0:
        return reshape_p(prim(reshape_p(x, shape=(1,)), dim=0), shape=())
    return prim(x, dim=dim)


def _widened(input: Any, dtype: Any) -> Tensor:
    x = to_tensor(input)
    if dtype is not None:
        return cast(x, dtypes.as_dtype(dtype))
    return x if x._v.dtype.kind == "f" else cast(x, dtypes.int64)


def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """Returns ``y[i] = x[0] + ... + x[i]`` along ``dim``; integers add up as int64."""
    return _apply(cumsum_p, _widened(input, dtype), dim)


def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """Returns ``y[i] = x[0] * ... * x[i]`` along ``dim``; integers multiply as int64."""
    return _apply(cumprod_p, _widened(input, dtype), dim)


# ---- log-sums of exponentials -----------------------------------------------------------------------------------------
def _exp_below(x: Tensor, y: Tensor) -> Tensor:
    """Returns ``exp(x - y)`` for x <= y; 1 where they are equal, infinities included."""
    return exp(where(eq(x, y), 0.0, sub(x, y)))


def _logcumsumexp_vjp(g: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    """Returns the sum over i >= k of g[i] exp(x[k] - o[i]), by a recurrence in the ratios exp(o[k] - o[k + 1]) <= 1."""
    if not o._v.size:
        return (g,)
    ratio = _exp_below(_later(o, zeros_like, dim), o)  # its first element is not read
    return (mul(_exp_below(ins[0], o), affine_scan_p(ratio, g, dim=dim, backwards=True)),)


logcumsumexp_p = _scan(
    "logcumsumexp", running(np.logaddexp), _logcumsumexp_vjp, keeps="io", flops=costs.LOG_FLOPS + costs.EXP_FLOPS
)


def logcumsumexp(input: Any, dim: int) -> Tensor:
    """Returns ``y[i] = log(exp(x[0]) + ... + exp(x[i]))`` along ``dim``, without overflow."""
    return _apply(logcumsumexp_p, floating(input), dim)


# ---- extrema ----------------------------------------------------------------------------------------------------------
cummax_index_p = _scan("cummax", latest(np.maximum), None, "", dtypes.int64)
cummin_index_p = _scan("cummin", latest(np.minimum), None, "", dtypes.int64)


def _running(prim: Primitive, input: Any, dim: int) -> ValuesIndices:
    x = to_tensor(input)
    at = _apply(prim, x, dim)
    return ValuesIndices(clone(x) if x.ndim == 0 else gather(x, normalize_dim(prim.name, dim, x.ndim), at), at)


def cummax(input: Any, dim: int) -> ValuesIndices:
    """Returns ``(values, indices)`` of the largest so far along ``dim``; the latest of equals; NaN wins."""
    return _running(cummax_index_p, input, dim)


def cummin(input: Any, dim: int) -> ValuesIndices:
    """Returns ``(values, indices)`` of the smallest so far along ``dim``; the latest of equals; NaN wins."""
    return _running(cummin_index_p, input, dim)


# ---- the product ------------------------------------------------------------------------------------------------------
def _prod_grad(g: Tensor, x: Tensor, o: Tensor, axes: tuple) -> Tensor:
    """Returns g times the product of all other elements: of those to the left times those to the right, right also at zeros."""
    shape = tuple(x._v.shape)
    rest = dropped(shape, axes)
    lead = tuple(i for i in range(len(shape)) if i not in axes)
    order = (*lead, *axes)
    count = numel(tuple(shape[a] for a in axes))
    rows = reshape_p(permute_p(x, dims=order), shape=(*rest, count))
    if count == 0:
        return x
    last = len(rest)
    edge = ones_like(slice_dim(rows, last, 0, 1))
    left = cat([edge, slice_dim(cumprod(rows, last), last, 0, count - 1)], last)
    back = flip(rows, (last,))
    right = flip(cat([edge, slice_dim(cumprod(back, last), last, 0, count - 1)], last), (last,))
    others = mul(mul(left, right), reshape_p(g, shape=(*rest, 1)))
    wide = reshape_p(others, shape=tuple(shape[d] for d in order))
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    return permute_p(wide, dims=inverse)


prod = reduction(
    "prod", functions.products, _prod_grad, "Returns the product over ``dim``; bools and integers multiply as int64.",
    keeps="i", takes=WIDE, numpy=lambda x, axes, out: np.prod(x, axis=axes, out=out), no_dims_are_all=False, casts=True,
)  # fmt: skip
