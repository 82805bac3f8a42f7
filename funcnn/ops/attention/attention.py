"""Scaled dot-product attention: ``softmax(scale * Q K^T + mask) V`` with dropout on the weights.

Two primitives stand on blocked kernels: the forward one gives the output and each query's log-sum-exp, the backward one
recomputes weights from it. The derivative of the latter, and that by a mask, are compositions of ordinary operations on whole
matrices of scores. Inputs are (..., heads, L, E); keys and values may have fewer heads, each then serving ``group``
consecutive heads of the queries. Which weights are dropped follows from a key: element (row, k) of the uniform numbers that
``ops.random.keys`` draws for all rows of scores, each row filled up to a multiple of four.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.graph import rescue
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.attention import launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import broadcast
from funcnn.ops.base.promote import operand, require_kernel_float, require_same_dtype
from funcnn.ops.base.structure import cast, number_like, unbroadcast
from funcnn.ops.elementwise.arithmetic import add, mul, sub
from funcnn.ops.elementwise.comparison import eq, gt
from funcnn.ops.elementwise.select import where
from funcnn.ops.matmul.matmul import matmul
from funcnn.ops.movement.views import expand, reshape, slice_dim, transpose
from funcnn.ops.random.generator import next_key
from funcnn.ops.random.keys import unit_p
from funcnn.ops.reduce.extrema import amax
from funcnn.ops.reduce.sums import sum as sum_
from funcnn.ops.softmax.softmax import softmax
from funcnn.ops.tensor.creation import tri, zeros_like

NAME = "scaled_dot_product_attention"


# ---- shapes -----------------------------------------------------------------------------------------------------------
def _shape(
    q: Any,
    k: Any,
    v: Any,
    *rest: Any,
    masked: bool,
    causal: bool,
    scale: float,
    dropout: float,
    apart: int,
    residuals: bool = True,
) -> tuple:
    """``apart``: so many leading axes count examples that draw their dropout alone, each from a key of its own."""
    require_same_dtype(NAME, q, k, v, *rest[:masked])
    require_kernel_float(NAME, q)
    fits = q.ndim == k.ndim == v.ndim >= 2 and q.shape[-1] == k.shape[-1] > 0 and v.shape[-2] == k.shape[-2]
    lead, other = (tuple(t.shape[:-2]) for t in (q, k))
    grouped = lead == other or (lead[:-1] == other[:-1] and other[-1] > 0 and lead[-1] % other[-1] == 0)
    if not fits or not grouped or tuple(v.shape[:-2]) != other:
        raise ShapeError(
            f"{NAME}: query {tuple(q.shape)}, key {tuple(k.shape)} and value {tuple(v.shape)} do not fit; expected "
            "(..., L, E), (..., S, E) and (..., S, Ev), E at least 1; for fewer heads of keys pass enable_gqa=True"
        )
    if masked:
        scores = (*lead, q.shape[-2], k.shape[-2])
        if broadcast(f"{NAME}: attn_mask", tuple(rest[0].shape), scores) != scores:
            raise ShapeError(f"{NAME}: attn_mask {tuple(rest[0].shape)} does not broadcast to the scores {scores}")
    return (Aval((*q.shape[:-1], v.shape[-1]), q.dtype), Aval(tuple(q.shape[:-1]), q.dtype))[: 1 + residuals]


def _grad_shape(g: Any, q: Any, k: Any, v: Any, *rest: Any, **params: Any) -> tuple:
    return tuple(Aval(tuple(t.shape), t.dtype) for t in (q, k, v))


# ---- derivatives by composition ---------------------------------------------------------------------------------------
def _heads(t: Tensor, lead: tuple[int, ...]) -> Tensor:
    """Keys or values with each head repeated for its group of the heads of ``lead``."""
    shape = t._v.shape
    if shape[:-2] == lead:
        return t
    group = lead[-1] // shape[-3]
    apart = reshape(t, (*shape[:-2], 1, *shape[-2:]))
    return reshape(expand(apart, (*shape[:-2], group, *shape[-2:])), (*lead, *shape[-2:]))


def _gathered(t: Tensor, like: Tensor) -> Tensor:
    """The transpose of ``_heads``: the sum over each group."""
    shape = like._v.shape
    if t._v.shape == shape:
        return t
    return sum_(reshape(t, (*shape[:-2], t._v.shape[-3] // shape[-3], *shape[-2:])), -3)


def _weights(q: Tensor, k: Tensor, rest: tuple, masked: bool, causal: bool, scale: float) -> Tensor:
    """The softmax of the scores, 0 where all keys are forbidden."""
    s = mul(matmul(q, transpose(k, -1, -2)), scale)
    if masked:
        s = add(s, rest[0])
    if causal:
        s = where(tri(s._v.shape[-2], s._v.shape[-1], device=s.device), s, -math.inf)
    if not masked:
        return softmax(s, -1)
    dead = eq(amax(s, -1, True), -math.inf)
    return where(dead, 0.0, softmax(where(dead, 0.0, s), -1))


def _kept(p: Tensor, rest: tuple, dropout: float, apart: int) -> Tensor | None:
    """What dropout multiplies the weights by."""
    if dropout == 0.0:
        return None
    keys = p._v.shape[-1]
    u = unit_p(rest[-1], shape=(*p._v.shape[apart:-1], -(-keys // 4) * 4), dtype=dtypes.float32)
    kept = cast(gt(slice_dim(u, u.ndim - 1, 0, keys), dropout), p._v.dtype)
    return mul(kept, 1.0 / (1.0 - dropout) if dropout < 1.0 else 0.0)


def _scores_grad(g: Tensor, q: Tensor, k: Tensor, v: Tensor, rest: tuple, params: dict) -> Tensor:
    """The cotangent of the scores, whole."""
    masked, causal, scale, dropout = (params[name] for name in ("masked", "causal", "scale", "dropout"))
    lead = tuple(q._v.shape[:-2])
    p = _weights(q, _heads(k, lead), rest, masked, causal, scale)
    dp, kept = matmul(g, transpose(_heads(v, lead), -1, -2)), _kept(p, rest, dropout, params["apart"])
    weighted = mul(p, dp if kept is None else mul(dp, kept))
    return sub(weighted, mul(p, sum_(weighted, -1, True)))


def _vjp(g: list, ins: list, outs: list, residuals: bool = True, **params: Any) -> tuple:
    q, k, v, *rest = ins
    assert g[0] is not None and g[1] is None, "the log-sum-exp is for the backward pass alone"
    grads = attention_grad_p(g[0], q, k, v, *outs, *rest, **params)
    if not params["masked"]:
        return (*grads, *(None for _ in rest))
    by_mask = lambda: unbroadcast(_scores_grad(g[0], q, k, v, tuple(rest), params), rest[0]._v.shape)
    return (*grads, by_mask, *(None for _ in rest[1:]))


def _grad_vjp(cotangents: list, ins: list, outs: list, **params: Any) -> tuple:
    """Of (dQ, dK, dV) as functions of (g, Q, K, V, mask); ``o`` and ``lse`` are functions of these already.

    With U the cotangent of dS, W that of D * (g V^T), and p, d_p as in the kernel: W = p (U - sum(p U)), and the weights'
    is U (dp - sum(p dp)) - dp sum(p U) + D (g c^T), whose way back is once more that of a softmax.
    """
    g, q, k, v, _, _, *rest = ins
    masked, causal, scale, dropout = (params[name] for name in ("masked", "causal", "scale", "dropout"))
    lead = tuple(q._v.shape[:-2])
    keys, values = _heads(k, lead), _heads(v, lead)
    a, b, c = (zeros_like(t) if cotangents[i] is None else cotangents[i] for i, t in enumerate((q, k, v)))
    b, c = _heads(b, lead), _heads(c, lead)
    flip = lambda t: transpose(t, -1, -2)
    across = lambda t: sum_(t, -1, True)
    p = _weights(q, keys, tuple(rest), masked, causal, scale)
    kept = _kept(p, tuple(rest), dropout, params["apart"])
    drop = (lambda t: t) if kept is None else (lambda t: mul(t, kept))
    dp = drop(matmul(g, flip(values)))
    centred = sub(dp, across(mul(p, dp)))
    ds = mul(p, centred)
    u = mul(add(matmul(a, flip(keys)), matmul(q, flip(b))), scale)
    mean = across(mul(p, u))
    w = drop(mul(p, sub(u, mean)))
    by_p = add(sub(mul(u, centred), mul(dp, mean)), drop(matmul(g, flip(c))))
    by_s = mul(p, sub(by_p, across(mul(p, by_p))))
    by_g = add(matmul(w, values), matmul(drop(p), c))
    by_q = mul(add(matmul(by_s, keys), matmul(ds, b)), scale)
    by_k = mul(add(matmul(flip(by_s), q), matmul(flip(ds), a)), scale)
    by_v = matmul(flip(w), g)
    by_mask = (unbroadcast(by_s, rest[0]._v.shape),) if masked else ()
    return (by_g, by_q, _gathered(by_k, k), _gathered(by_v, v), None, None, *by_mask, *(None for _ in rest[masked:]))


# ---- batching ---------------------------------------------------------------------------------------------------------
def _batch(prim: Any, count: int) -> Any:
    """The batch is one more leading dimension of the first ``count`` inputs; with dropout, each example draws alone."""

    def rule(n: int, ins: list, batched: list, apart: int, **params: Any) -> Any:
        whole, rest = all_batched(n, ins[:count], batched[:count]), list(ins[count:])
        if params["masked"] and batched[count]:
            shape = rest[0]._v.shape
            rank = whole[1]._v.ndim  # of the queries with the batch
            rest[0] = reshape(rest[0], (n, *(1,) * (rank - len(shape)), *shape[1:]))
        if params["dropout"] > 0.0:
            rest[-1:] = all_batched(n, rest[-1:], batched[-1:])
            apart += 1
        return prim()(*whole, *rest, apart=apart, **params)

    return rule


attention_p = Primitive(
    NAME,
    _shape,
    cpu=launch.attention,
    vjp=_vjp,
    batch=_batch(lambda: attention_p, 3),
    keeps="io",
    multiple=True,
    unused=lambda used, params: None if used[1] else (attention_p, {**params, "residuals": False}),
    flops=costs.attention(0, (1, 1)),
)
attention_grad_p = Primitive(
    f"{NAME}_grad",
    _grad_shape,
    cpu=launch.attention_grad,
    vjp=_grad_vjp,
    batch=_batch(lambda: attention_grad_p, 6),
    multiple=True,
    flops=costs.attention(1, (3, 2)),
)


# ---- the function -----------------------------------------------------------------------------------------------------
def _additive(mask: Any, q: Tensor) -> Tensor:
    """A mask to add: True is 0, False minus infinity."""
    t = operand(NAME, mask)
    if t._v.dtype == dtypes.bool_:
        return where(t, number_like(q, 0.0), -math.inf)
    if t._v.dtype != q._v.dtype:
        raise DTypeError(f"{NAME}: expected attn_mask of bool or of the query's {q._v.dtype}, got {t._v.dtype}")
    return t


def _leads(q: Tensor, k: Tensor, v: Tensor, grouped: bool) -> list[Tensor]:
    """The inputs with their leading dimensions broadcast; with ``grouped``, those before the heads."""
    tail = 3 if grouped else 2
    tensors = [q, k, v]
    leads = [tuple(t._v.shape[:-tail]) for t in tensors]
    if leads[0] == leads[1] == leads[2]:
        return tensors
    lead = broadcast(NAME, *leads)
    return [expand(t, (*lead, *t._v.shape[-tail:])) for t in tensors]


def key_decides(f: Callable) -> Callable:
    """``key=`` as what decides random numbers (``rng``), where PyTorch calls an argument ``key`` and it was given by position."""

    @wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > 1 and "key" in kwargs:
            kwargs["rng"] = kwargs.pop("key")
        return f(*args, **kwargs)

    return call


@key_decides
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    rng: Tensor | None = None,
) -> Tensor:
    """``softmax(scale * query key^T + attn_mask) value`` (arXiv:1706.03762), (..., L, Ev), without the whole scores.

    query: (..., L, E); key: (..., S, E); value: (..., S, Ev). scale: by default ``1 / sqrt(E)``. attn_mask: broadcasts to
    (..., L, S); a bool one is True where a query may look. is_causal: query i sees keys 0 to i. dropout_p: applied whenever
    it is not 0. enable_gqa: dimension -3 of key and value may be a divisor of the query's. A query that may see no key
    gives 0. rng (or, with three tensors by position, key): what decides the dropout, by default the next key of the global
    generator. Raises ``ShapeError`` and ``DTypeError`` for inputs that do not fit, ``ValueError`` for a bad dropout_p.
    """
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"{NAME}: dropout_p must be between 0 and 1, got {dropout_p}")
    q, k, v = operand(NAME, query), operand(NAME, key), operand(NAME, value)
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError(f"{NAME}: expected at least 2 dimensions, got {q.ndim}, {k.ndim} and {v.ndim}")
    q, k, v = _leads(q, k, v, enable_gqa and min(q.ndim, k.ndim, v.ndim) > 2)
    rest = [] if attn_mask is None else [_additive(attn_mask, q)]
    if dropout_p > 0.0:
        rest.append(next_key() if rng is None else rng)
    factor = 1.0 / math.sqrt(max(q._v.shape[-1], 1)) if scale is None else float(scale)
    out = attention_p(
        q,
        k,
        v,
        *rest,
        masked=attn_mask is not None,
        causal=bool(is_causal),
        scale=factor,
        dropout=float(dropout_p),
        apart=0,
    )[0]
    return rescue(out)
