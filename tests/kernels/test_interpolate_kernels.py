"""The resampling kernel against matrix products, over table widths, both orders of axes and chunk shapes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu import interpolate


def table(rng, n, m, taps, absent, dtype):
    """A random table of n to m pixels whose rows rise slowly, and the same as a matrix."""
    index = np.minimum(np.arange(m) * n // m + np.arange(taps)[:, None], n - 1).astype(np.int32)
    if absent:
        index[rng.integers(1, taps + 1, m)[None] <= np.arange(taps)[:, None]] = -1
    weight = rng.normal(size=(taps, m)).astype(dtype)
    matrix = np.zeros((m, n))
    for t, p in product(range(taps), range(m)):
        if index[t, p] >= 0:
            matrix[p, index[t, p]] += weight[t, p]
    return index.ravel(), weight.ravel(), matrix


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("taps", [(1, 1), (2, 2), (4, 4), (3, 4), (4, 3)])
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(
    ("order", "plan"), [("rows", (2, 9)), ("rows", (1, 2)), ("columns", (3, 9)), ("columns", (1, 3)), ("alone", (1, 2))]
)
def test_resize(taps, absent, order, plan, dtype):
    rng = np.random.default_rng(0)
    m, h, w, p = 4, 6, 5, 9
    q = w if order == "alone" else 7
    rows, rw, left = table(rng, h, p, taps[0], absent, dtype)
    columns, cw, right = table(rng, w, q, taps[1], absent, dtype)
    if order == "alone":
        right = np.eye(w)
    ring = 4 if order == "columns" else 0
    x = rng.normal(size=(m, h, w)).astype(dtype)
    results = []
    for threads in (1, 2):
        y = np.full((m, p, q), np.nan, dtype)
        scratch, marks = np.empty((threads, 4 * 7), dtype), np.empty((threads, 4), np.int64)
        width = (columns, cw, 0 if order == "alone" else taps[1], bool((columns >= 0).all()))
        interpolate.resize(
            x.ravel(), y.ravel(), (rows, rw, taps[0]), width, (h, w, p, q), scratch, marks, (ring, *plan), threads
        )
        results.append(y)
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(results[0], left @ x @ right.T, tolerance, tolerance)
    assert results[0].tobytes() == results[1].tobytes()
