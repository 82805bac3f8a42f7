"""Rows of random numbers: their oracle is a plain Philox in Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.ops import random
from tests.cases.case import Arr, Case

M, W, MASK = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 0xFFFFFFFF
KEY = Arr((2,), 0, 2**32, "uint32")


def philox(key: Any, *counter: int) -> list[int]:
    """Philox4x32-10, straight from the paper's definition."""
    c, k = list(counter), [int(word) for word in key]
    for _ in range(10):
        high = [(m * c[2 * i]) >> 32 for i, m in enumerate(M)]
        low = [(m * c[2 * i]) & MASK for i, m in enumerate(M)]
        c = [high[1] ^ c[1] ^ k[0], low[1], high[0] ^ c[3] ^ k[1], low[0]]
        k = [(word + step) & MASK for word, step in zip(k, W, strict=True)]
    return c


def _stream(key: Any, stream: int, shape: tuple) -> np.ndarray:
    count = int(np.prod(shape))
    words = [word for i in range(-(-count // 4)) for word in philox(key, i, 0, stream, 0)]
    return np.array(words[:count], np.uint32).reshape(shape)


ROWS = [
    Case("random_bits", lambda k: random.bits(k, (3, 5)), (KEY,), numpy=lambda k: _stream(k, 0, (3, 5)), grad=False),
    Case("random_bits_many", lambda k: random.bits(k, 100), (KEY,), numpy=lambda k: _stream(k, 0, (100,)), grad=False),
    Case("random_split", lambda k: random.split(k, 3), (KEY,), numpy=lambda k: _stream(k, 1, (3, 2)), grad=False),
    Case(
        "random_fold_in",
        random.fold_in,
        (KEY, Arr((), 0, 2**40, "int64")),
        numpy=lambda k, d: np.array(philox(k, int(d) & MASK, int(d) >> 32, 2, 0)[:2], np.uint32),
        grad=False,
    ),
]
