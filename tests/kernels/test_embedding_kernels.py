"""Embedding kernels against NumPy, on one and on two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu import embedding

CASES = pytest.mark.parametrize(
    ("rows", "width", "count", "run"), [(5, 3, 11, 2), (1, 1, 1, 1), (40, 17, 300, 7), (6, 2, 0, 4)]
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@CASES
def test_rows_and_their_transpose(rows, width, count, run, dtype):
    rng = np.random.default_rng(0)
    table, dy = rng.normal(size=(rows, width)).astype(dtype), rng.normal(size=(count, width)).astype(dtype)
    index = rng.integers(-1, rows, count)
    kept = index >= 0
    sums = np.zeros((rows, width))
    np.add.at(sums, index[kept], dy[kept])
    seen = []
    for threads in (1, 2):
        out, grad = np.full_like(dy, np.nan), np.full_like(table, np.nan)
        embedding.gather_rows(table.ravel(), index, out.ravel(), width, run, threads)
        embedding.scatter_rows(dy.ravel(), index, grad.ravel(), width, run, threads)
        np.testing.assert_array_equal(out, np.where(kept[:, None], table[index], 0))
        np.testing.assert_allclose(grad, sums, 1e-5 if dtype == "float32" else 1e-13, 1e-5)
        seen.append((out.tobytes(), grad.tobytes()))
    assert seen[0] == seen[1]


def test_the_first_index_outside():
    assert embedding.first_outside(np.array([0, 3, 2]), 0, 4) == -1
    assert embedding.first_outside(np.array([0, 4, -1]), 0, 4) == 1
    assert embedding.first_outside(np.array([0, -1, 4]), -1, 4) == 2
    assert embedding.first_outside(np.zeros(0, np.int64), 0, 0) == -1
