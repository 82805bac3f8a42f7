"""Our matrix product against NumPy's, in every layout, and with every number of threads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu.matmul import launch as matmul_cpu
from funcnn.kernels.cpu.matmul.epilogue import ACTIVATIONS
from funcnn.kernels.cpu.threads import number as threads
from tests.plain import sized

SIZES = [(100, 70, 131), (64, 33, 96), (57, 49, 10), (9, 200, 100), (8, 8, 8), (8, 9, 70)]
LAYOUTS = {"rows": np.ascontiguousarray, "columns": np.asfortranarray}


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """Small products go to our kernel too."""
    monkeypatch.setattr(matmul_cpu, "WORTHWHILE", 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_against_numpy(size, dtype):
    m, k, n = size
    rng = np.random.default_rng(0)
    a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (n,)))
    for left, right, extra in product(LAYOUTS.values(), LAYOUTS.values(), (None, bias)):
        out = np.full((m, n), np.nan, dtype)
        matmul_cpu.product(left(a), right(b), out, extra)
        expected = a.astype(np.float64) @ b.astype(np.float64) + (0 if extra is None else extra)
        assert abs(out - expected).max() < (1e-5 if dtype == "float32" else 1e-13) * abs(expected).max()


def _finished(c, bias, scale, residual, activation):
    for part, apply in ((scale, np.multiply), (bias, np.add), (residual, np.add)):
        c = c if part is None else apply(c, part)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    return {None: lambda x: x, "relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid, "tanh": np.tanh}[activation](c)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [sized((100, 70, 131), (17, 9, 70)), (9, 20, 100), (40, 9, 8), (2, 3, 4)])
def test_epilogues(size, activation):
    m, k, n = size
    rng = np.random.default_rng(0)
    a, b, bias, scale, residual = (rng.standard_normal(shape) for shape in ((m, k), (k, n), (n,), (n,), (m, n)))
    for affine, more in product(((bias, None), (bias, scale), (None, None)), (None, residual)):
        out = np.full((m, n), np.nan)
        matmul_cpu.product(a, b, out, *affine, more, activation)
        np.testing.assert_allclose(out, _finished(a @ b, *affine, more, activation), rtol=1e-12, atol=1e-12)


def test_relu_keeps_nan():
    out = np.empty((16, 16), np.float32)
    matmul_cpu.product(np.full((16, 16), np.nan, np.float32), np.eye(16, dtype=np.float32), out, activation="relu")
    assert np.isnan(out).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_number_of_threads_does_not_change_a_bit(size, monkeypatch):
    m, k, n = size
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    results = []
    for many in (1, 2, 3):
        monkeypatch.setattr(threads, "workers", lambda work, many=many: many)
        out = np.empty((m, n))
        matmul_cpu.product(a, b, out)
        results.append(out.tobytes())
    assert len(set(results)) == 1


def test_nan_and_inf_stay_in_their_row_and_column():
    a, b = np.ones((20, 30), np.float32), np.ones((30, 40), np.float32)
    a[3, 4], b[5, 6] = np.nan, np.inf
    out = np.empty((20, 40), np.float32)
    matmul_cpu.product(a, b, out)
    expected = np.full((20, 40), 30, np.float32)
    expected[:, 6], expected[3] = np.inf, np.nan
    np.testing.assert_array_equal(out, expected)
