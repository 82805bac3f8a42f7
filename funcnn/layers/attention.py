"""Multi-head attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, bounded, float_dtype, frozen_set, positive
from funcnn.layers.linear import Linear
from funcnn.ops.attention.multihead import multi_head_attention_forward
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.elementwise.arithmetic import mul
from funcnn.ops.movement.views import select, transpose
from funcnn.ops.random.keys import normal_from, split
from funcnn.ops.tensor.creation import zeros


def _forward(
    self: Any, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple:  # fmt: skip
    """``(output, weights)``; see the class."""
    return self.applied(query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)


@dataclass(frozen=True, repr=False)
class NonDynamicallyQuantizableLinear(Linear):
    """``Linear`` under the name that PyTorch gives the output projection of ``MultiheadAttention``."""


@dataclass(frozen=True, repr=False)
class MultiheadAttention(Layer):
    """Attention with several heads and learned projections (Vaswani et al., arXiv:1706.03762).

    ``output, weights = attention(query, key, value)``: (L, N, embed_dim), (S, N, kdim), (S, N, vdim) to (L, N, embed_dim)
    and (N, L, S); without N for all; N first with ``batch_first``. ``key_padding_mask`` (N, S) and ``attn_mask`` (L, S) or
    (N * num_heads, L, S): True hides a key, floats are added to the scores. With ``need_weights=False`` the weights are
    None and never whole in memory; ``average_attn_weights=False`` gives them by heads (N, num_heads, L, S).
    """

    embed_dim: int = arg("size of the queries and of the output")
    num_heads: int = arg("heads, each of embed_dim / num_heads dimensions")
    dropout: float = arg("probability of dropping an attention weight in training", 0.0)
    bias: bool = arg("whether the projections have biases", True)
    add_bias_kv: bool = arg("one more key and value, learned", False)
    add_zero_attn: bool = arg("one more key and value of zeros", False)
    kdim: int | None = arg("size of the keys, None for embed_dim", None)
    vdim: int | None = arg("size of the values, None for embed_dim", None)
    batch_first: bool = arg("inputs and output are (N, L, size), not (L, N, size)", False)
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the parameters, None for the default float", None)
    parameters: ClassVar[tuple[str, ...]] = (
        "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    )  # fmt: skip
    module_methods: ClassVar[dict[str, Callable]] = {"forward": _forward}

    def __post_init__(self) -> None:
        name = "MultiheadAttention"
        positive(name, embed_dim=self.embed_dim, num_heads=self.num_heads)
        if self.embed_dim % self.num_heads:
            raise ValueError(f"{name}: embed_dim {self.embed_dim} must be divisible by num_heads {self.num_heads}")
        if not 0.0 <= self.dropout <= 1.0:
            raise ValueError(f"{name}: dropout must be between 0 and 1, got {self.dropout}")
        frozen_set(self, kdim=self.kdim or self.embed_dim, vdim=self.vdim or self.embed_dim)

    def children(self) -> dict[str, Layer]:
        """The projection of the output."""
        return {
            "out_proj": NonDynamicallyQuantizableLinear(self.embed_dim, self.embed_dim, self.bias, dtype=self.dtype)
        }

    @property
    def needs_key(self) -> bool:
        return self.dropout > 0

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """Weights uniform after Glorot and Bengio (2010), biases zero, bias_k and bias_v normal."""
        keys = [select(split(key, 6), 0, i) for i in range(6)]
        e, params = self.embed_dim, {}
        sizes = {"q": e, "k": self.kdim or e, "v": self.vdim or e}
        if set(sizes.values()) == {e}:
            params["in_proj_weight"] = bounded(keys[0], (3 * e, e), math.sqrt(6.0 / (4 * e)), self.dtype)
        else:
            for own, (name, size) in zip(keys, sizes.items(), strict=False):
                params[f"{name}_proj_weight"] = bounded(own, (e, size), math.sqrt(6.0 / (e + size)), self.dtype)
        if self.bias:
            params["in_proj_bias"] = zeros(3 * e, dtype=float_dtype(self.dtype))
        if self.add_bias_kv:
            for name, own in (("bias_k", keys[3]), ("bias_v", keys[4])):
                params[name] = mul(normal_from(own, (1, 1, e), float_dtype(self.dtype)), math.sqrt(1.0 / e))
        out, _ = self.children()["out_proj"].init(keys[5])
        if self.bias:
            out["bias"] = zeros(e, dtype=float_dtype(self.dtype))
        return {**params, "out_proj": out}, {"out_proj": {}}

    def __call__(
        self, params: dict, state: dict, query: Any, keys: Any, values: Any, key_padding_mask: Any = None,
        need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False, *,
        training: bool = False, key: Any = None,
    ) -> tuple:  # fmt: skip
        same, alike = keys is query, values is keys
        query = to_tensor(query)
        keys = query if same else to_tensor(keys)
        values = keys if alike else to_tensor(values)
        flip = self.batch_first and query.ndim == 3
        if flip:
            query = transpose(query, 0, 1)
            keys = query if same else transpose(keys, 0, 1)
            values = keys if alike else transpose(values, 0, 1)
        out, weights = multi_head_attention_forward(
            query, keys, values, self.embed_dim, self.num_heads, params.get("in_proj_weight"),
            params.get("in_proj_bias"), params.get("bias_k"), params.get("bias_v"), self.add_zero_attn, self.dropout,
            params["out_proj"]["weight"], params["out_proj"].get("bias"), training, key_padding_mask, need_weights, attn_mask,
            "in_proj_weight" not in params, params.get("q_proj_weight"), params.get("k_proj_weight"),
            params.get("v_proj_weight"), average_attn_weights=average_attn_weights, is_causal=is_causal,
            rng=self.key_for(training, key) if training and self.needs_key else None,
        )  # fmt: skip
        return ((transpose(out, 0, 1) if flip else out), weights), state
