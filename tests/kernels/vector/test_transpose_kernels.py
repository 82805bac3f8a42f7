"""Tiles transposed in registers."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.build.compile import kernel
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.transpose import transpose, transpose_narrow, transpose_tile


@kernel
def move_tile(source, step, target, apart, count):
    transpose_tile(pointer(source, 2), step, pointer(target, 3), apart, count)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transpose_tile(dtype):
    lanes = vector_bytes() // np.dtype(dtype).itemsize
    source = np.arange(50 * lanes, dtype=dtype)
    for count in (0, 1, lanes - 1, lanes):
        target = np.full(50 * lanes, -1, dtype)
        expected = target.copy()
        for j in range(count):
            for i in range(lanes):
                expected[3 + j * 37 + i] = source[2 + i * 41 + j]
        move_tile(source, 41, target, 37, count)
        np.testing.assert_array_equal(target, expected)


@kernel
def transpose_matrix(x, y, rows, columns):
    transpose(pointer(x, 0), x.shape[1], pointer(y, 0), y.shape[1], rows, columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 40), (16, 16), (17, 33), (40, 7), (8, 24), (0, 5), (32, 48)])
def test_transpose(rows, columns, dtype):
    x, y = np.random.default_rng(0).standard_normal((50, 60)).astype(dtype), np.full((55, 45), -1, dtype)
    expected = y.copy()
    expected[:columns, :rows] = x[:rows, :columns].T
    transpose_matrix(x, y, rows, columns)
    np.testing.assert_array_equal(y, expected)


@kernel
def narrow(x, y, rows, columns):
    transpose_narrow(pointer(x, 0), columns, pointer(y, 0), rows, rows, columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "rows, columns", [(1, 1), (1, 40), (3, 128), (7, 33), (15, 16), (16, 16), (17, 5), (0, 5), (5, 0)]
)
def test_transpose_narrow_touches_nothing_else(rows, columns, dtype):
    x, y = (
        np.random.default_rng(0).standard_normal((rows, columns)).astype(dtype),
        np.full(rows * columns + 40, -1, dtype),
    )
    narrow(x.reshape(-1), y, rows, columns)
    np.testing.assert_array_equal(y[: rows * columns].reshape(columns, rows), x.T)
    np.testing.assert_array_equal(y[rows * columns :], -1)
