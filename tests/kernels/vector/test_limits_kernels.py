"""The kernels behind the machine's limits compute what they say."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.machine import tile_shape
from funcnn.kernels.cpu.vector import peak as kernels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 2])
def test_products_and_copies(dtype, count):
    rng = np.random.default_rng(0)
    rows, columns = tile_shape(np.dtype(dtype).itemsize)
    a, b = rng.standard_normal((5, rows)).astype(dtype), rng.standard_normal((5, columns)).astype(dtype)
    c = np.zeros(rows * columns * count, dtype)
    kernels.multiply(a.ravel(), b.ravel(), c, 5, columns, rows * columns, 2, 3, count)
    tiles = c.reshape(count, rows, columns)
    np.testing.assert_allclose(tiles[np.abs(tiles).max((1, 2)).argmax()], a.T @ b, rtol=1e-5, atol=1e-5)
    source, target = rng.standard_normal(24).astype(dtype), np.zeros(24, dtype)
    kernels.copy(source, target, 6, 4, count)
    np.testing.assert_array_equal(target, source)
