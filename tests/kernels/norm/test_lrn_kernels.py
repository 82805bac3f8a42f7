"""Local response normalisation kernels against naive loops, on one and two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.norm import lrn

CASES = [((2, 5, 7), 3), ((1, 4, 40), 2), ((3, 3, 1), 5), ((2, 6, 33), 1)]


def naive(x, dy, size, alpha, beta, k):
    """y, base and dx."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    base = np.full_like(x, k)
    windows = [
        [j for j in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= j < x.shape[1]] for c in range(x.shape[1])
    ]
    for c, window in enumerate(windows):
        base[:, c] += alpha / size * (x[:, window] ** 2).sum(1)
    dx = dy * base**-beta
    for c, window in enumerate(windows):
        for j in window:
            dx[:, j] -= 2 * alpha * beta / size * x[:, j] * dy[:, c] * x[:, c] * base[:, c] ** (-beta - 1)
    return x * base**-beta, base, dx


def run(x, dy, size, alpha, beta, k, threads):
    y, base, dx = (np.full_like(x, np.nan) for _ in range(3))
    scratch = np.empty(threads * (x.shape[1] + 1) * 16, x.dtype)
    lrn.local_response(x, y, base, True, size, alpha, beta, k, 16, threads)
    lrn.local_response_grad(dy, x, base, dx, scratch, size, alpha, beta, 16, threads)
    return y, base, dx


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape, size", CASES)
def test_against_loops(shape, size, dtype):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    settings = (size, 0.3, 0.75, 2.0)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    one, two = (run(x, dy, *settings, threads) for threads in (1, 2))
    for got, other, expected in zip(one, two, naive(x, dy, *settings), strict=True):
        np.testing.assert_allclose(got, expected, tolerance, tolerance)
        assert got.tobytes() == other.tobytes()


def test_nan_reaches_its_neighbours_only():
    x = np.ones((1, 5, 2))
    x[0, 0, 0] = np.nan
    y, _, dx = run(x, np.ones_like(x), 3, 1e-4, 0.75, 1.0, 1)
    assert np.isnan(y[0, :2, 0]).all() and np.isfinite(y[0, 2:, 0]).all() and np.isfinite(y[0, :, 1]).all()
    assert np.isnan(dx[0, :3, 0]).all() and np.isfinite(dx[0, 3:, 0]).all()
