"""Pooling kernels against loops over windows, and against PyTorch where windows run over the right edge."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu import pool

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
# x (M, D, H, W), output (O, P, Q), kernel, stride, padding, dilation
CASES = {
    "plain": ((3, 1, 6, 8), (1, 3, 4), (1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1)),
    "3d": ((2, 4, 5, 6), (2, 3, 6), (2, 3, 3), (2, 2, 1), (0, 1, 1), (1, 1, 1)),
    "stride over kernel": ((2, 1, 7, 9), (1, 3, 2), (1, 1, 2), (1, 3, 5), (0, 0, 0), (1, 1, 1)),
    "dilation": ((2, 1, 7, 8), (1, 5, 4), (1, 2, 3), (1, 1, 1), (0, 1, 0), (1, 3, 2)),
    "ceil mode": ((2, 1, 6, 7), (1, 3, 4), (1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1)),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    "nothing but padding": ((2, 1, 1, 1), (1, 1, 2), (1, 1, 2), (1, 1, 1), (0, 0, 2), (1, 1, 3)),
    "no images": ((0, 1, 4, 4), (1, 2, 2), (1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1)),
}
ROWS = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
UNDILATED = [case for case in CASES.values() if case[5] == (1, 1, 1)]


def window(pixel, x, kernel, stride, padding, dilation):
    """The flat indices of the pixels of an image that a window covers, in order."""
    starts = [o * s - p for o, s, p in zip(pixel, stride, padding, strict=True)]
    places = product(*[[b + k * d for k in range(n)] for b, n, d in zip(starts, kernel, dilation, strict=True)])
    sizes = x.shape[1:]
    inside = [at for at in places if all(0 <= a < n for a, n in zip(at, sizes, strict=True))]
    return [int(np.ravel_multi_index(at, sizes)) for at in inside]


def naive_max(x, out, where):
    """Values and indices; of equals the first, of NaNs the last, as in PyTorch."""
    y, argmax = np.full((x.shape[0], *out), -np.inf), np.full((x.shape[0], *out), -1)
    for m, pixel in product(range(x.shape[0]), product(*map(range, out))):
        for index in window(pixel, x, *where):
            value = x[m].flat[index]
            if argmax[(m, *pixel)] < 0 or value > y[(m, *pixel)] or np.isnan(value):
                y[(m, *pixel)], argmax[(m, *pixel)] = value, index
    return y, argmax


def naive_avg(x, dy, where, include, override):
    """The means and the gradient of <dy, means>."""
    kernel, stride, padding = where
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for m, pixel in product(range(x.shape[0]), product(*map(range, dy.shape[1:]))):
        inside = window(pixel, x, *where, (1, 1, 1))
        ends = zip(pixel, stride, padding, kernel, x.shape[1:], strict=True)
        whole = np.prod([min(o * s - p + k, n + p) - (o * s - p) for o, s, p, k, n in ends])
        count = override or (whole if include else len(inside))
        for index in inside:
            y[(m, *pixel)] += x[m].flat[index] / count
            dx[m].flat[index] += dy[(m, *pixel)] / count
    return y, dx


def run_max(x, out, where):
    y, argmax = np.empty((x.shape[0], *out), x.dtype), np.empty((x.shape[0], *out), np.int64)
    pool.max_pool_forward(x, y, argmax, *where)
    return y, argmax


@DTYPES
@ROWS
def test_max_pool_and_its_gradient(case, dtype):
    shape, out, *where = case
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, shape).astype(dtype)  # many equals
    y, argmax = run_max(x, out, where)
    expected, places = naive_max(x, out, where)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(argmax, places)
    dy, dx, back = rng.standard_normal(y.shape).astype(dtype), np.full_like(x, np.nan), np.full_like(y, np.nan)
    pool.pool_scatter(dy, argmax, dx)
    pool.pool_gather(x, argmax, back)
    scattered = np.zeros(shape)
    for m in range(shape[0]):
        real = places[m] >= 0
        np.add.at(scattered[m].reshape(-1), places[m][real], dy[m][real])
    np.testing.assert_allclose(dx, scattered, 1e-5, 1e-6)
    np.testing.assert_array_equal(back, np.where(places >= 0, expected, 0))


@DTYPES
def test_max_pool_of_nan_and_infinities(dtype):
    x = np.full((1, 1, 4, 6), -np.inf, dtype)
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = np.nan
    x[0, 0, 2, 3], x[0, 0, 3, 2] = np.inf, 1
    where = ((1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1))
    y, argmax = run_max(x, (1, 2, 3), where)
    expected, places = naive_max(x, (1, 2, 3), where)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(argmax, places)
    assert np.isnan(y[0, 0, 0, 0]) and argmax[0, 0, 0, 0] == 6 and argmax[0, 0, 0, 1] == 2


@DTYPES
@pytest.mark.parametrize("include, override", [(True, 0), (False, 0), (True, 5)])
@pytest.mark.parametrize("case", UNDILATED)
def test_avg_pool_and_its_gradient(case, include, override, dtype):
    shape, out, *where, _ = case
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal((shape[0], *out)).astype(dtype)
    y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
    pool.avg_pool_forward(x, y, *where, include, override)
    pool.avg_pool_grad(dy, dx, *where, include, override)
    for got, expected in zip((y, dx), naive_avg(x, dy, where, include, override), strict=True):
        np.testing.assert_allclose(got, expected, 1e-5, 1e-6)


def test_avg_pool_lets_nan_through():
    x, y = np.ones((1, 1, 2, 4), np.float32), np.empty((1, 1, 1, 2), np.float32)
    x[0, 0, 1, 3] = np.nan
    pool.avg_pool_forward(x, y, (1, 2, 2), (1, 2, 2), (0, 0, 0), True, 0)
    np.testing.assert_array_equal(y, [[[[1, np.nan]]]])


@pytest.mark.parametrize(
    "size, kernel, stride, padding", [(7, 3, 2, 1), (6, 3, 2, 1), (8, 3, 3, 0), (5, 2, 3, 1), (9, 4, 5, 2)]
)
def test_pooling_over_the_right_edge_is_pytorchs(size, kernel, stride, padding):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(2).standard_normal((2, 1, size, size + 1))
    theirs = torch.from_numpy(x[:, 0])
    where = ((1, kernel, kernel), (1, stride, stride), (0, padding, padding))
    for ceil_mode, include, override in product((False, True), (False, True), (None, 3)):
        args = (kernel, stride, padding, ceil_mode)
        expected = torch.nn.functional.avg_pool2d(theirs, *args, include, override).numpy()
        y = np.empty((2, 1, *expected.shape[1:]))
        pool.avg_pool_forward(x, y, *where, include, override or 0)
        np.testing.assert_allclose(y[:, 0], expected, 1e-12)
        best, places = torch.nn.functional.max_pool2d(theirs, *args[:3], 1, ceil_mode, return_indices=True)
        y, argmax = run_max(x, (1, *best.shape[1:]), (*where, (1, 1, 1)))
        np.testing.assert_array_equal(y[:, 0], best.numpy())
        np.testing.assert_array_equal(argmax[:, 0], places.numpy())
