"""The resampling kernel against matrix products, over table widths, both orders of axes and chunk shapes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu.sampling import interpolate
from funcnn.kernels.cpu.vector.table_taps import ABSENT
from funcnn.kernels.cpu.vector.tap_tables import padded, widths
from tests.plain import sized

NOTHING = np.zeros(0, np.int64)


def table(rng, n, m, taps, absent, dtype):
    """A random table of n to m pixels whose rows rise slowly, and the same as a matrix."""
    index = np.minimum(np.arange(m) * n // m + np.arange(taps)[:, None], n - 1)
    if absent:
        index[rng.integers(1, taps + 1, m)[None] <= np.arange(taps)[:, None]] = -1
    weight = rng.normal(size=(taps, m)).astype(dtype)
    matrix = np.zeros((m, n))
    for t, p in product(range(taps), range(m)):
        if index[t, p] >= 0:
            matrix[p, index[t, p]] += weight[t, p]
    return index, weight, matrix


def as_rows(index, weight, width, ring):
    slots = index % ring if ring else index
    places = np.where(index < 0, -1, slots * width)
    return index.ravel(), places.ravel(), slots.ravel(), weight.ravel(), len(index)


def as_columns(index, weight):
    return padded(np.where(index < 0, ABSENT, index)), padded(weight), *widths(index)


ORDERS = pytest.mark.parametrize(
    ("order", "plan"),
    [
        ("rows", (2, 9)),
        ("rows", (1, 2)),
        ("columns", (3, 9)),
        ("columns", (1, 3)),
        ("alone", (1, 2)),
        ("along", (2, 6)),
    ],
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("taps", [(1, 1), (2, 2), (4, 4), (3, 4), (4, 3)])
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("width", sized([(5, 7), (3, 16), (16, 9), (20, 37), (1, 1)], [(5, 7), (17, 18)]))
@ORDERS
def test_resize(taps, absent, order, plan, width, dtype):
    rng = np.random.default_rng(0)
    m, h, p = 4, 6, 6 if order == "along" else 9
    w, q = (width[0], width[0]) if order == "alone" else width
    ring = 4 if order == "columns" else 0
    *rows, left = table(rng, h, p, taps[0], absent, dtype)
    *columns, right = table(rng, w, q, taps[1], absent, dtype)
    rows, columns = as_rows(*rows, q if ring else w, ring), as_columns(*columns)
    nothing = np.zeros(0, dtype)
    if order == "alone":
        right, columns = np.eye(w), (NOTHING.astype(np.int32), nothing, 0, 0)
    if order == "along":
        left, rows = np.eye(h), (NOTHING, NOTHING, NOTHING, nothing, 0)
    x = rng.normal(size=(m, h, w)).astype(dtype)
    results = []
    for threads in (1, 2):
        y = np.full((m, p, q), np.nan, dtype)
        each = 4 * max(w, q)
        scratch, marks = np.empty(threads * each, dtype), np.empty(threads * 4, np.int64)
        cut = (ring, *plan, each, 4)
        interpolate.resize(x.ravel(), y.ravel(), *rows, *columns, (h, w, p, q), scratch, marks, cut, threads)
        results.append(y)
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(results[0], left @ x @ right.T, tolerance, tolerance)
    assert results[0].tobytes() == results[1].tobytes()


def test_what_is_absent_is_not_nan_times_zero():
    """Numbers that a table does not name do not matter, not even where its filler points."""
    x = np.array([[np.nan, 1.0, 2.0]], np.float32)
    columns = as_columns(np.array([[1, 2], [-1, 1]]), np.ones((2, 2), np.float32))
    y = np.empty((1, 2), np.float32)
    none = (NOTHING, NOTHING, NOTHING, np.zeros(0, np.float32), 0)
    interpolate.resize(
        x.ravel(),
        y.ravel(),
        *none,
        *columns,
        (1, 3, 1, 2),
        np.empty(3, np.float32),
        np.empty(1, np.int64),
        (0, 1, 1, 3, 1),
        1,
    )
    assert y.tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_are_input_rows(dtype):
    """Of nearest pixels no row is combined: each comes from its input row, or the output row before it."""
    rng = np.random.default_rng(2)
    x, picked = rng.normal(size=(3, 4, 19)).astype(dtype), np.array([0, 0, 1, 3, 3, 3])
    index, weight, right = table(rng, 19, 23, 1, False, dtype)
    rows = as_rows(picked[None], np.ones((1, 6), dtype), 19, 0)
    for threads, plan in ((1, (-1, 2, 6)), (2, (-1, 1, 4))):
        y, nothing = np.full((3, 6, 23), np.nan, dtype), np.zeros(0, dtype)
        table_, sizes, marks = as_columns(index, weight), (4, 19, 6, 23), np.zeros(0, np.int64)
        interpolate.resize(x.ravel(), y.ravel(), *rows, *table_, sizes, nothing, marks, (*plan, 0, 0), threads)
        np.testing.assert_allclose(y, x[:, picked] @ right.T, 1e-5)
