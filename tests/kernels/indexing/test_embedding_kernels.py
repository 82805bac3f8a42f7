"""Embedding kernels against NumPy, on one and on two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.indexing import embedding

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
        embedding.gather_rows(table.ravel(), index, out.ravel(), width, run, -1, rows, np.zeros(4, np.int64), threads)
        embedding.scatter_rows(dy.ravel(), index, grad.ravel(), width, run, -1, rows, np.zeros(4, np.int64), threads)
        np.testing.assert_array_equal(out, np.where(kept[:, None], table[index], 0))
        np.testing.assert_allclose(grad, sums, 1e-5 if dtype == "float32" else 1e-13, 1e-5)
        seen.append((out.tobytes(), grad.tobytes()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("index", "least", "place"), [([0, 3, 2], 0, -1), ([0, 4, -1], 0, 1), ([0, -1, 4], -1, 2), ([], 0, -1)]
)
def test_an_index_outside_is_found_before_anything_is_written(index, least, place):
    index, rows, few = np.array(index, np.int64), np.ones(4 * 2), np.ones(2 * len(index))
    out, grad = np.full_like(few, np.nan), np.full_like(rows, np.nan)
    expected = [1, 1, place, index[place]] if place >= 0 else [0] * 4
    for threads in (1, 2):
        for kernel, arrays in (
            (embedding.gather_rows, (rows, index, out)),
            (embedding.scatter_rows, (few, index, grad)),
        ):
            status = np.zeros(4, np.int64)
            kernel(*arrays, 2, 5, least, 4, status, threads)
            assert status.tolist() == expected
    assert np.isnan(out).all() == np.isnan(grad).all() == (place >= 0) or not index.size
