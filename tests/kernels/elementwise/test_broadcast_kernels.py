"""Loops over a vector and an array, choices by a mask, and transposed copies, against NumPy; one and two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.elementwise import broadcast
from funcnn.kernels.cpu.elementwise.loops import CHUNK
from funcnn.kernels.cpu.movement.permute import lay_out, turn_planes
from tests.plain import sized

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
STRIPS = {"add_strip": np.add, "sub_strip": np.subtract, "mul_strip": np.multiply, "div_strip": np.divide,
          "prelu_strip": lambda x, w: np.where(x > 0, x, x * w)}  # fmt: skip
# (A, B, C) where the vector lies along B: rows, columns, runs and vectors longer than a chunk
SHAPES = [(5, 17, 1), (1, 6, 20), (3, 4, 33), *sized([(2, CHUNK + 9, 1), (2, 3, CHUNK + 9), (900, 64, 1)], [])]


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
@pytest.mark.parametrize("size", [0, 1, 19, *sized([2 * CHUNK + 5], [])])
def test_a_choice(size, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, size)).astype(dtype)
    mask = rng.random(size) < 0.5
    x[:1], y[-1:] = np.nan, np.inf
    for threads in (1, 2):
        for other in (y, np.full(min(size, CHUNK), 3, dtype)):  # a block of equal numbers stands for an array of them
            out = np.full_like(x, 7)
            broadcast.select(mask.view(np.uint8), x, other, out, threads)
            np.testing.assert_array_equal(out, np.where(mask, x, y if other is y else 3))


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 70, 3), (1, 16, 64), (3, 37, 65), *sized([(2, 200, 300)], [])])
def test_transposed_planes(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for threads in (1, 2):
        out = np.full((shape[0], shape[2], shape[1]), np.nan, dtype)
        turn_planes(x.reshape(-1), out.reshape(-1), *shape, threads)
        np.testing.assert_array_equal(out, x.transpose(0, 2, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("order", [(0,), (1, 0), (0, 2, 1), (2, 0, 1), (3, 1, 0, 2)])
def test_axes_laid_out_in_another_order(order, dtype):
    x = np.arange(np.prod(range(2, 2 + len(order)))).reshape(range(2, 2 + len(order))).astype(dtype)
    turned, out = x.transpose(order), np.full(x.size + 1, -1, dtype)
    lay_out(x.reshape(-1), np.array([*turned.shape, *(s // x.itemsize for s in turned.strides)]), out[:-1])
    np.testing.assert_array_equal(out[:-1].reshape(turned.shape), turned)
    assert out[-1] == -1
