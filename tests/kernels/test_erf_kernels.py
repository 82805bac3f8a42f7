"""The error function's family against the standard library, and the inverse against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from funcnn.kernels.cpu import erf

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SPECIAL = [0.0, -0.0, 1e-300, 0.5, -2.5, 6.0, 27.0, -27.0, np.inf, -np.inf, np.nan]


def run(kernel, x):
    y = np.full_like(x, 7)
    kernel(x, y)
    return y


@DTYPES
@pytest.mark.parametrize("name", ["erf", "erfc"])
def test_erf_and_erfc(name, dtype):
    x = np.concatenate([np.linspace(-7, 10, 301), SPECIAL]).astype(dtype)
    expected = [getattr(math, name)(float(value)) for value in x]
    rtol, atol = (2e-6, 1e-37) if dtype == "float32" else (4e-15, 1e-300)
    np.testing.assert_allclose(run(getattr(erf, name), x), np.array(expected), rtol, atol)
    assert run(getattr(erf, name), x[:0]).size == 0


def test_erfinv_is_within_a_few_ulp():
    tails = 1 - np.logspace(-15.9, -0.4, 400)
    for x in [*np.linspace(1e-3, 0.999, 500), *tails, *np.logspace(-300, -3, 200), 1 - 2.0**-53, 5e-324]:
        t = run(erf.erfinv, np.array([x]))[0]
        off = (1 - x) - math.erfc(t) if x > 0.5 else x - math.erf(t)
        error = abs(off) * math.sqrt(math.pi) / 2 * math.exp(t * t)
        assert error <= 3 * np.spacing(t), (x, t, error / np.spacing(t))
        assert run(erf.erfinv, np.array([-x]))[0] == -t


def test_erfinv_against_known_digits():
    x = np.array([0.1, 0.5, 0.9, 0.99])
    # Newton's method on the Maclaurin series of erf in 60 digits
    expected = [0.08885599049425769, 0.4769362762044699, 1.1630871536766743, 1.8213863677184494]
    np.testing.assert_allclose(run(erf.erfinv, x), expected, rtol=5e-16)


@DTYPES
def test_erfinv_at_the_ends_and_outside(dtype):
    x = np.array([1, -1, 0, 1.0001, -2, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(run(erf.erfinv, x), [np.inf, -np.inf, 0, np.nan, np.nan, np.nan, np.nan])


def test_erfinv_in_float32_is_float64s_rounded():
    x = np.linspace(-0.9999, 0.9999, 1001).astype(np.float32)
    np.testing.assert_allclose(run(erf.erfinv, x), run(erf.erfinv, x.astype(np.float64)), rtol=1e-7)
