"""The first of each row against a sort: order, equals, NaN, infinities, one and two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.reduce.topk import top_rows
from tests.plain import sized


def naive(row, k, largest):
    """Stable; NaN counts as the largest."""
    keys = np.where(np.isnan(row), np.inf, row), np.isnan(row)
    sign = -1 if largest else 1
    return np.lexsort((np.arange(row.size), sign * keys[1].astype(int), sign * keys[0]))[:k]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    "rows, n, k", [(3, 5, 1), (4, 7, 7), (2, 90, 20), *sized([(700, 129, 5), (2, 50_000, 64)], [])]
)
def test_places(rows, n, k, largest, dtype):
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((rows, n)), 1).astype(dtype)  # with equals
    x[0, :2], x[-1, -2:] = [np.nan, np.inf], [-np.inf, np.nan]
    for threads in (1, 2):
        best = np.full((rows, k), -1)
        top_rows(x.reshape(-1), best.reshape(-1), n, k, largest, threads)
        for row, places in zip(x, best, strict=True):
            np.testing.assert_array_equal(places, naive(row, k, largest))
