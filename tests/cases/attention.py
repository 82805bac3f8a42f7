"""Rows of attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases.both import both
from tests.cases.case import Arr, Case

LOOSE = {"float32": 2e-5, "float64": 1e-11}
Q, K, V = Arr((2, 3, 5, 4)), Arr((2, 3, 6, 4)), Arr((2, 3, 6, 3))
HIDDEN = np.array([[True] * 6, [False] * 6, [True, False] * 3, [True] + [False] * 5, [False] * 5 + [True]])


def _attend(**options: Any) -> Any:
    return lambda m, *tensors: m.nn.functional.scaled_dot_product_attention(*tensors, **options)


ROWS: list[Case] = [
    both("attention", _attend(), Q, K, V, rtol=LOOSE),
    both("attention_matrices", _attend(scale=0.7), Arr((5, 4)), Arr((6, 4)), Arr((6, 3)), rtol=LOOSE),
    both("attention_causal", _attend(is_causal=True), Arr((2, 7, 4)), Arr((2, 5, 4)), Arr((2, 5, 9)), rtol=LOOSE),
    both("attention_mask", _attend(), Q, K, V, Arr((5, 6)), rtol=LOOSE),
    both("attention_mask_of_heads", _attend(), Q, K, V, Arr((3, 1, 6)), rtol=LOOSE),
    both("attention_mask_of_queries", _attend(), Q, K, V, Arr((2, 1, 5, 1)), rtol=LOOSE),
    both("attention_bool_mask", lambda m, q, k, v: _attend(attn_mask=m.tensor(HIDDEN))(m, q, k, v), Q, K, V, rtol=LOOSE),
    both("attention_grouped", _attend(enable_gqa=True), Arr((2, 6, 5, 4)), Arr((2, 3, 6, 4)), Arr((2, 3, 6, 3)), rtol=LOOSE),
    both("attention_broadcast", _attend(), Arr((2, 3, 5, 4)), Arr((1, 6, 4)), Arr((2, 1, 6, 3)), rtol=LOOSE),
]  # fmt: skip
