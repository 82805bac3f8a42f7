"""Pooling by tables of planes against windows one by one: groups of planes and what is left of them, ties, NaN, threads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu.pool import plane as plane_pool
from funcnn.kernels.cpu.pool.windows import windows_of
from funcnn.kernels.cpu.vector.tap_tables import ABSENT, GROUP_OUTPUTS, listed, plane_table
from tests.plain import sized

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
# planes, outputs, how; adaptive windows have no how
CASES = {
    "3 x 3 apart": ((7, 7), (2, 2), ((3, 3), (3, 3), (0, 0), True, 0)),
    "2 x 2 apart": ((7, 7), (3, 3), ((2, 2), (2, 2), (0, 0), True, 0)),
    "overlapping, padded": ((7, 7), (4, 4), ((3, 3), (2, 2), (1, 1), False, 0)),
    "more outputs than a group": ((9, 11), (9, 11), ((3, 3), (1, 1), (1, 1), True, 0)),
    "one window": ((5, 4), (1, 1), ((5, 4), (5, 4), (0, 0), True, 0)),
    "line": ((40,), (13,), ((3,), (3,), (0,), True, 7)),
    "box": ((4, 5, 6), (2, 2, 3), ((2, 3, 2), (2, 2, 2), (0, 1, 0), True, 0)),
    "over the edge": ((6, 7), (3, 4), ((3, 3), (2, 2), (0, 0), True, 0)),
    "adaptive": ((7, 5), (3, 2), ()),
    "adaptive, more than there are": ((2, 3), (4, 5), ()),
}
ROWS = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
PLANES = pytest.mark.parametrize("planes", sized([1, 7, 64, 131], [1, 19]))


def ranges_of(space, out, how):
    windows = windows_of(space, out, how)
    cut = np.cumsum((1,) * (3 - len(out)) + out)[:-1]
    return [np.array(part) for part in np.split(windows.bounds[0], cut)], windows


def naive_places(space, out, how):
    """The flat indices under each window, in order."""
    ranges, _ = ranges_of(space, out, how)
    whole = (1,) * (3 - len(space)) + space
    return [
        [int(np.ravel_multi_index(at, whole)) for at in product(*[range(*span) for span in spans])]
        for spans in product(*ranges)
    ]


def divisors_of(space, out, how):
    _, windows = ranges_of(space, out, how)
    deep, high, wide = np.split(windows.extents, np.cumsum((1,) * (3 - len(out)) + out)[:-1])
    return (deep[:, None, None] * high[:, None] * wide).ravel().astype(float)


def table_of(space, out, how, repeat):
    ranges, _ = ranges_of(space, out, how)
    return plane_table(listed(ranges, (1,) * (3 - len(space)) + space), int(np.prod(space)), repeat)


@DTYPES
@PLANES
@ROWS
def test_the_largest(case, planes, dtype):
    space, out, how = case
    table, places = table_of(*case, True), naive_places(*case)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (planes, int(np.prod(space)))).astype(dtype)  # many equals
    x[rng.random(x.shape) < 0.05] = np.nan
    x[rng.random(x.shape) < 0.1] = -np.inf
    expected, indices = np.empty((planes, len(places))), np.empty((planes, len(places)), np.int64)
    for m, (o, taps) in product(range(planes), enumerate(places)):
        nan = np.flatnonzero(np.isnan(x[m, taps]))
        indices[m, o] = taps[nan[-1] if nan.size else int(np.argmax(x[m, taps]))]
        expected[m, o] = x[m, indices[m, o]]
    for threads, kind in ((1, np.int32), (2, np.int64)):
        y, argmax = np.empty((planes, len(places)), dtype), np.empty((planes, len(places)), kind)
        chunk = table.sizes[3]
        plane_pool.plane_maxima(
            x.ravel(), y.ravel(), argmax.ravel(), table.indices.array, table.corners.array, table.sizes, chunk, threads
        )
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(argmax, indices)
        values = np.empty_like(y)
        plane_pool.plane_peaks(x.ravel(), values.ravel(), table.indices.array, table.sizes, 2 * chunk, threads)
        np.testing.assert_array_equal(values, expected)


@DTYPES
@PLANES
@ROWS
def test_the_mean_and_its_gradient(case, planes, dtype):
    space, out, how = case
    table, places, divisors = table_of(*case, False), naive_places(*case), divisors_of(*case)
    rng, outputs, pixels = np.random.default_rng(1), len(places), int(np.prod(space))
    matrix = np.zeros((outputs, pixels))
    for o, taps in enumerate(places):
        matrix[o, taps] = 1 / divisors[o]
    back = np.full((max(1, int((matrix > 0).sum(0).max())), pixels), -1)
    for w in range(pixels):
        over = np.flatnonzero(matrix[:, w])
        back[: over.size, w] = over
    turned = plane_table(back, outputs, False)
    shares = np.where(back < 0, 0, 1 / divisors[back]).astype(dtype)
    x, dy = (rng.standard_normal((planes, n)).astype(dtype) for n in (pixels, outputs))
    tolerance, results = (1e-4 if dtype == "float32" else 1e-12), []
    for threads in (1, 2):
        y, dx = np.empty_like(dy), np.empty_like(x)
        parts, weights = table.each(divisors.astype(dtype)), turned.each(shares)
        plane_pool.plane_means(x.ravel(), y.ravel(), table.indices.array, parts, table.sizes, table.sizes[3], threads)
        plane_pool.plane_sums(
            dy.ravel(), dx.ravel(), turned.indices.array, weights, turned.sizes, turned.sizes[3], threads
        )
        np.testing.assert_allclose(y, x @ matrix.T, tolerance, tolerance)
        np.testing.assert_allclose(dx, dy @ matrix, tolerance, tolerance)
        results.append((y.tobytes(), dx.tobytes()))
    assert results[0] == results[1]


def test_an_absent_tap_adds_nothing_though_its_place_holds_nan():
    table = plane_table(np.array([[1, 2], [-1, 1]]), 3, False)
    assert (table.indices.array == ABSENT).any() and table.sizes[3] == GROUP_OUTPUTS // 2
    x, y, dx = np.array([np.nan, 1, 3], np.float32), np.empty(2, np.float32), np.empty(2, np.float32)
    plane_pool.plane_means(x, y, table.indices.array, table.each(np.array([1, 2], np.float32)), table.sizes, 64, 1)
    plane_pool.plane_sums(
        x, dx, table.indices.array, table.each(np.array([[1, 2], [0, 4]], np.float32)), table.sizes, 64, 1
    )
    assert y.tolist() == [1, 2] and dx.tolist() == [1, 10]
