"""Rows of random numbers: their oracle is a plain Philox in Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.ops.base.promote import to_tensor
from funcnn.ops.elementwise.activation import dropout
from funcnn.ops.random import generator
from funcnn.ops.random import keys as random
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


def _units(key: Any, shape: tuple, double: bool) -> np.ndarray:
    words = _stream(key, 0, (*shape, 2) if double else shape).astype(np.float64)
    return (
        (np.floor(words[..., 0] / 32) * 2**26 + np.floor(words[..., 1] / 64)) / 2**53
        if double
        else words // 256 / 2**24
    )


def _normals(key: Any, count: int, double: bool) -> np.ndarray:
    u, v = _units(key, (2, -(-count // 2)), double)
    turns = 2 * np.pi * v + np.array([[0], [-np.pi / 2]])
    return (np.sqrt(-2 * np.log(1 - u)) * np.cos(turns)).reshape(-1)[:count]


ROWS = [
    Case("probability", lambda p: random.probability("bernoulli", p), (Arr((3, 4), 0, 1),), lambda p: p),
    Case("deviation", lambda std: generator.deviation("normal", std), (Arr((3, 4), 0, 2),), lambda std: std),
    Case("weights", lambda w: generator.weights_p(to_tensor(w)), (Arr((3, 4), 0.1, 2),), lambda w: w),
    Case("flat", lambda x: generator.flat_p(to_tensor(x)), (Arr((3, 4)),), lambda x: 0 * x),
    Case("random_uniform", lambda k: random.uniform(k, (3, 5), "float32"), (KEY,), lambda k: _units(k, (3, 5), False), grad=False),
    Case("random_uniform_double", lambda k: random.uniform(k, (3, 2), "float64"), (KEY,), lambda k: _units(k, (3, 2), True),
         grad=False),
    Case("random_normal", lambda k: random.normal(k, 7, "float32"), (KEY,), lambda k: _normals(k, 7, False), grad=False,
         rtol={"float32": 1e-5, "float64": 1e-5}),
    Case("random_normal_double", lambda k: random.normal(k, 6, "float64"), (KEY,), lambda k: _normals(k, 6, True), grad=False),
    Case("dropout", lambda k, x: dropout(x, 0.4, key=k), (KEY, Arr((4, 5))),
         lambda k, x: x * (_units(k, (4, 5), False) > np.float32(0.4)) / 0.6),
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
]  # fmt: skip
