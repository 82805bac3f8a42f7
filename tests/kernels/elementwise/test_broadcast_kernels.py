"""Loops over a vector and an array, and choices by a mask, against NumPy; one and two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.elementwise import broadcast
from funcnn.kernels.cpu.elementwise.loops import CHUNK_ELEMENTS
from tests.plain import sized

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
STRIPS = {"add_strip": np.add, "sub_strip": np.subtract, "mul_strip": np.multiply, "div_strip": np.divide,
          "prelu_strip": lambda x, w: np.where(x > 0, x, x * w)}  # fmt: skip
# (A, B, C) where the vector lies along B: rows, columns, runs and vectors longer than a chunk
SHAPES = [
    (5, 17, 1),
    (1, 6, 20),
    (3, 4, 33),
    *sized([(2, CHUNK_ELEMENTS + 9, 1), (2, 3, CHUNK_ELEMENTS + 9), (900, 64, 1)], []),
]


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", STRIPS)
def test_a_vector_along_an_axis(name, shape, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape).astype(dtype), rng.uniform(0.5, 2, shape[1]).astype(dtype)
    x[-1, -1, -1], y[1] = np.nan, np.inf
    for threads in (1, 2):
        out = np.full_like(x, 7)
        getattr(broadcast, name)(x.reshape(-1), y, out.reshape(-1), shape[2], threads)
        np.testing.assert_array_equal(out, STRIPS[name](x, y[:, None]))


@DTYPES
@pytest.mark.parametrize("size", [0, 1, 19, *sized([2 * CHUNK_ELEMENTS + 5], [])])
def test_a_choice(size, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, size)).astype(dtype)
    mask = rng.random(size) < 0.5
    x[:1], y[-1:] = np.nan, np.inf
    for threads in (1, 2):
        for other in (
            y,
            np.full(min(size, CHUNK_ELEMENTS), 3, dtype),
        ):  # a block of equal numbers stands for an array of them
            out = np.full_like(x, 7)
            broadcast.select(mask.view(np.uint8), x, other, out, threads)
            np.testing.assert_array_equal(out, np.where(mask, x, y if other is y else 3))
