"""Running sums and products against naive loops: rows, columns, both directions, one and two threads."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.reduce import scan
from tests.plain import sized

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
# (outer, n, inner): rows of a group that is no multiple of four, one row, columns, two pieces of columns
SHAPES = [(7, 9, 1), (1, 5, 1), (2, 6, 3), (1, 4, 520), *sized([(37, 9000, 1), (3, 200, 1300)], [])]


def naive(x, backwards, join, start):
    out = np.empty(x.shape)
    for o in range(x.shape[0]):
        for i in range(x.shape[2]):
            total = start
            for k in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
                total = join(total, float(x[o, k, i]))
                out[o, k, i] = total
    return out.astype(x.dtype)


@DTYPES
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    "kernel, join, start", [(scan.running_sum, float.__add__, 0.0), (scan.running_product, float.__mul__, 1.0)]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_on_one_thread_and_two(shape, kernel, join, start, backwards, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    x[-1, 2, 0] = np.inf
    expected = naive(x, backwards, join, start)
    for threads in (1, 2):
        out = np.full_like(x, np.nan)
        kernel(x.reshape(-1), out.reshape(-1), *shape[1:], backwards, threads)
        assert out.tobytes() == expected.tobytes()


@DTYPES
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_affine_scan(shape, backwards, dtype):
    a, b = np.random.default_rng(1).uniform(-1, 1, (2, *shape)).astype(dtype)
    a[:, 0, 0] = np.inf  # nothing reads it: there is no step before the first
    expected = np.empty(shape)
    total = np.zeros((shape[0], shape[2]))
    for k in reversed(range(shape[1])) if backwards else range(shape[1]):
        place = k + backwards
        total = b[:, k] + (a[:, place].astype(np.float64) * total if 0 < place < shape[1] else 0.0)
        expected[:, k] = total
    for threads in (1, 2):
        out = np.full_like(b, np.nan)
        scan.affine_scan(a.reshape(-1), b.reshape(-1), out.reshape(-1), *shape[1:], backwards, threads)
        np.testing.assert_allclose(
            out, expected, 1e-6 if dtype == "float32" else 1e-13, 1e-6 if dtype == "float32" else 1e-14
        )
