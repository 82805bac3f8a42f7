"""Attention with several heads and learned projections (Vaswani et al., arXiv:1706.03762, section 3.2.2).

Inside, the batch comes first: (N, L, E) and, by heads, (N, H, L, E / H). Masks are added to the scores.
"""

from __future__ import annotations

import math
from typing import Any

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor
from funcnn.ops.attention.attention import key_decides, scaled_dot_product_attention
from funcnn.ops.base.promote import operand
from funcnn.ops.elementwise.activation import dropout
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.elementwise.select import where
from funcnn.ops.matmul.matmul import linear, matmul
from funcnn.ops.movement.join import cat, chunk
from funcnn.ops.movement.pad import pad
from funcnn.ops.movement.views import expand, reshape, slice_dim, squeeze, transpose, unsqueeze
from funcnn.ops.reduce.sums import mean
from funcnn.ops.softmax.softmax import softmax
from funcnn.ops.tensor.creation import zeros

NAME = "multi_head_attention_forward"


def _additive(name: str, mask: Any, dtype: Any) -> Tensor | None:
    """A mask to add to the scores: minus infinity where a bool one is True."""
    if mask is None:
        return None
    t = operand(f"{NAME}: {name}", mask)
    if t._v.dtype == dtypes.bool_:
        return where(t, -math.inf, zeros(t._v.shape, dtype=dtype, device=t.device))
    if t._v.dtype.kind != "f":
        raise DTypeError(f"{NAME}: {name} must be of bool or of a floating dtype, got {t._v.dtype}")
    return t


def _tensors(*given: Any) -> list:
    """What may be absent, as tensors."""
    return [None if t is None else operand(NAME, t) for t in given]


def _check(query: Tensor, key: Tensor, value: Tensor, embed: int, heads: int, separate: bool) -> None:
    shapes = [t._v.shape for t in (query, key, value)]
    listed = f"query {shapes[0]}, key {shapes[1]}, value {shapes[2]}"
    if query.ndim not in (2, 3) or query.ndim != key.ndim or query.ndim != value.ndim:
        raise ShapeError(f"{NAME}: expected inputs of 2 dimensions, or of 3 with a batch, got {listed}")
    if shapes[0][-1] != embed or heads <= 0 or embed % heads:
        raise ShapeError(
            f"{NAME}: {listed} for {heads} heads; expected queries of embed_dim {embed}, divided by the heads"
        )
    if shapes[1][:-1] != shapes[2][:-1] or (not separate and shapes[1] != shapes[2]):
        raise ShapeError(f"{NAME}: key and value must agree, got {listed}")
    if query.ndim == 3 and shapes[0][1] != shapes[1][1]:
        raise ShapeError(f"{NAME}: query and key must have one batch size, got {listed}")


def _batch_first(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, L, E) of (L, N, E) or (L, E); what was one tensor stays one."""
    first = (lambda t: transpose(t, 0, 1)) if query.ndim == 3 else (lambda t: unsqueeze(t, 0))
    q = first(query)
    k = q if key is query else first(key)
    return q, k, k if value is key else first(value)


def _projected(query: Tensor, key: Tensor, value: Tensor, weight: Any, bias: Any, *apart: Any) -> list[Tensor]:
    """Queries, keys and values; ``weight`` holds all three, or is None and ``apart`` holds them."""
    embed = query._v.shape[-1]
    biases = [None] * 3 if bias is None else [slice_dim(bias, 0, i * embed, (i + 1) * embed) for i in range(3)]
    if weight is None:
        return [linear(x, w, b) for x, w, b in zip((query, key, value), apart, biases, strict=True)]
    if query is key and key is value:
        return list(chunk(linear(query, weight, bias), 3, -1))
    parts = [slice_dim(weight, 0, i * embed, (i + 1) * embed) for i in range(3)]
    return [linear(x, w, b) for x, w, b in zip((query, key, value), parts, biases, strict=True)]


def _by_heads(t: Tensor, heads: int) -> Tensor:
    """(N, L, E) as (N, H, L, E / H)."""
    n, length, embed = t._v.shape
    return transpose(reshape(t, (n, length, heads, embed // heads)), 1, 2)


def _keys(t: Tensor, bias: Any, static: Any, more: bool, n: int, heads: int) -> Tensor:
    """Projected keys or values (N, S, E) by heads, with the learned one and the zero one behind; or the static ones."""
    if bias is not None:
        t = cat([t, expand(bias, (n, 1, t._v.shape[-1]))], 1)
    t = _by_heads(t, heads) if static is None else reshape(static, (n, heads, *static._v.shape[1:]))
    return cat([t, zeros((n, heads, 1, t._v.shape[-1]), dtype=t._v.dtype, device=t.device)], 2) if more else t


def _scores_mask(mask: Tensor | None, n: int, heads: int, sizes: tuple[int, int]) -> Tensor | None:
    """An attn_mask (L, S) or (N * H, L, S), the latter by heads. Raises ``ShapeError``."""
    if mask is None:
        return None
    shape = mask._v.shape
    if shape not in (sizes, (n * heads, *sizes)):
        raise ShapeError(f"{NAME}: attn_mask must be {sizes} or {(n * heads, *sizes)}, got {shape}")
    return mask if mask.ndim == 2 else reshape(mask, (n, heads, *sizes))


def _padding_mask(mask: Tensor | None, n: int, keys: int) -> Tensor | None:
    """A key_padding_mask (N, S), or (S,) without a batch, as (N, 1, 1, S). Raises ``ShapeError``."""
    if mask is None:
        return None
    if mask._v.shape not in ((n, keys), (keys,) if n == 1 else ()):
        raise ShapeError(f"{NAME}: key_padding_mask must be {(n, keys)}, got {mask._v.shape}")
    return reshape(mask, (n, 1, 1, keys))


def _one_mask(masks: list[Tensor | None], more: int) -> Tensor | None:
    """The sum of the masks, which show ``more`` keys at the end."""
    given = [pad(m, (0, more)) if more else m for m in masks if m is not None]
    return add(*given) if len(given) == 2 else given[0] if given else None


def _with_weights(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float, rng: Any) -> tuple[Tensor, Tensor]:
    """The result and the weights that made it."""
    scores = matmul(mul(q, math.sqrt(1.0 / q._v.shape[-1])), transpose(k, -1, -2))
    weights = dropout(softmax(scores if mask is None else add(scores, mask), -1), p, key=rng)
    return matmul(weights, v), weights


@key_decides
def multi_head_attention_forward(
    query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any, in_proj_bias: Any,
    bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Any, out_proj_bias: Any,
    training: bool = True, key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Any = None, k_proj_weight: Any = None,
    v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None, average_attn_weights: bool = True,
    is_causal: bool = False, *, rng: Any = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """``(output, weights)``: inputs (L, N, E), (S, N, Ek), (S, N, Ev) or without N, the output like the query.

    A True in a bool mask hides a key; weights (N, L, S), or (N, H, L, S) with ``average_attn_weights=False``, are None
    without ``need_weights``, and only then are the scores never whole in memory. ``is_causal`` promises that ``attn_mask``
    is causal. static_k, static_v: (N * H, S, E / H) in place of projected keys and values. rng (or,
    with the three by position, key): what decides the dropout, by default the next key of the global generator.
    """
    query, key, value = operand(NAME, query), operand(NAME, key), operand(NAME, value)
    given = _tensors(in_proj_weight, in_proj_bias, q_proj_weight, k_proj_weight, v_proj_weight)
    bias_k, bias_v, static_k, static_v = _tensors(bias_k, bias_v, static_k, static_v)
    _check(query, key, value, embed_dim_to_check, num_heads, use_separate_proj_weight)
    if is_causal and attn_mask is None:
        raise ValueError(f"{NAME}: is_causal is a promise about attn_mask, and there is none; pass the mask too")
    batched = query.ndim == 3
    query, key, value = _batch_first(query, key, value)
    (n, length, embed), keys = query._v.shape, key._v.shape[1]
    plain = is_causal and key_padding_mask is None and not need_weights
    masks = [
        _scores_mask(
            None if plain else _additive("attn_mask", attn_mask, query._v.dtype), n, num_heads, (length, keys)
        ),
        _padding_mask(_additive("key_padding_mask", key_padding_mask, query._v.dtype), n, keys),
    ]
    q, k, v = _projected(query, key, value, None if use_separate_proj_weight else given[0], *given[1:])
    q = _by_heads(q, num_heads)
    k = _keys(k, bias_k, static_k, add_zero_attn, n, num_heads)
    v = _keys(v, bias_v, static_v, add_zero_attn, n, num_heads)
    mask = _one_mask(masks, (bias_k is not None) + bool(add_zero_attn))
    p, weights = dropout_p if training else 0.0, None
    if need_weights:
        out, weights = _with_weights(q, k, v, mask, p, rng)
        weights = mean(weights, 1) if average_attn_weights else weights
        weights = weights if batched else squeeze(weights, 0)
    else:
        out = scaled_dot_product_attention(q, k, v, mask, p, plain, rng=rng)
    out = linear(reshape(transpose(out, 1, 2), (n, length, embed)), out_proj_weight, out_proj_bias)
    return (transpose(out, 0, 1) if batched else squeeze(out, 0)), weights
