"""Normalisation kernels against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu import norm

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SHAPES = pytest.mark.parametrize("shape", [(4, 3, 5), (1, 6, 7), (8, 2, 1), (1, 1, 2), (3, 0, 4), (2, 3, 100)])
EPS = 1e-5


def forward(x, eps=EPS):
    y = np.full_like(x, np.nan)
    mean, rstd, var = (np.full(x.shape[1], np.nan, x.dtype) for _ in range(3))
    norm.normalize_forward(x, y, mean, rstd, var, eps)
    return y, mean, rstd, var


def naive(x):
    x = x.astype(np.float64)
    mean, var = x.mean((0, 2), keepdims=True), x.var((0, 2), keepdims=True)
    rstd = 1 / np.sqrt(var + EPS)
    return (x - mean) * rstd, mean.ravel(), rstd.ravel(), var.ravel()


@DTYPES
@SHAPES
def test_forward_and_gradient(shape, dtype):
    rng = np.random.default_rng(0)
    x, dy = ((2 * rng.standard_normal(shape) + 3).astype(dtype) for _ in range(2))
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    for got, expected in zip(forward(x), naive(x), strict=True):
        np.testing.assert_allclose(got, expected, tolerance, tolerance)
    y, _, rstd, _ = forward(x)
    dx = np.full_like(x, np.nan)
    norm.normalize_grad(dy, y, rstd, dx)
    wide, out = dy.astype(np.float64), y.astype(np.float64)
    along = out * (wide * out).mean((0, 2), keepdims=True)
    expected = rstd[None, :, None] * (wide - wide.mean((0, 2), keepdims=True) - along)
    np.testing.assert_allclose(dx, expected, tolerance, tolerance)


@DTYPES
def test_a_large_mean_costs_no_digits(dtype):
    x = (1e4 + np.random.default_rng(1).standard_normal((64, 2, 256))).astype(dtype)
    for got, expected in zip(forward(x), naive(x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_a_constant_channel_is_zero():
    y, _, rstd, var = forward(np.full((3, 1, 4), 7.5, np.float32))
    assert not y.any() and not var.any() and np.isclose(rstd[0], EPS**-0.5)


@DTYPES
def test_nan_and_inf_stay_in_their_channel(dtype):
    x = np.random.default_rng(2).standard_normal((2, 3, 4)).astype(dtype)
    x[0, 0, 1], x[1, 2, 0] = np.nan, np.inf
    y, mean, rstd, var = forward(x)
    assert np.isnan(y[:, [0, 2]]).all() and np.isfinite(y[:, 1]).all()
    assert np.isnan(mean[0]) and mean[2] == np.inf and np.isnan(var[[0, 2]]).all() and np.isfinite(rstd[1])


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3)])
def test_gradient_lets_nan_through(shape):
    dy, y, dx = np.ones(shape), np.ones(shape), np.zeros(shape)
    dy[0, 0, 0] = np.nan
    norm.normalize_grad(dy, y, np.ones(shape[1]), dx)
    assert np.isnan(dx[:, 0]).all() and np.isfinite(dx[:, 1:]).all()
