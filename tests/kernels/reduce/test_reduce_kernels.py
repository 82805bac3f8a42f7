"""Reduction kernels against naive loops: every cut of the plan, one and two threads, NaN and inf, large means."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from funcnn.kernels.cpu.reduce import argument, runs
from funcnn.kernels.cpu.reduce import functions as reduce
from funcnn.kernels.cpu.reduce import spread as reduce_back

PLAIN = os.environ.get("NUMBA_DISABLE_JIT") == "1"  # a run is added up one by one then, not in 64 lanes
SINGLE = 1e-5 if PLAIN else 5e-7
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
# (A, B, C, D): runs, cut runs, several segments; rows side by side, blocks of rows, of segments, pieces of the columns
CASES = pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 7, 1), (3, 4, 5, 1), (1, 3, 2100, 1), (1, 1, 17000, 1), (2, 2, 16400, 1), (300, 2, 3, 1),
        (1, 5, 3, 2), (2, 3, 70, 2), (1, 2, 300, 3), (1, 1, 5000, 6), (2, 1, 300, 40), (1, 1, 9, 1100), (70, 2, 3, 64),
        (1, 2, 16, 100), (3, 1, 8, 520),
    ],
)  # fmt: skip


def reduced(kernel, x, how=1.0, centre=None, wide=False, threads=1):
    """x (A, B, C, D) reduced over A and C, (B, D)."""
    plan = runs.cuts_of(*x.shape)
    out = np.full((x.shape[1], x.shape[3]), np.nan, np.float64 if wide else x.dtype)
    middle = np.empty(1) if centre is None else np.ascontiguousarray(centre, np.float64).reshape(-1)
    partial = np.full(int(plan[runs.BLOCKS]) * out.size, np.nan)
    kernel(x.reshape(-1), middle, how, partial, out.reshape(-1), plan, threads)
    return out


def everything(x, threads=1):
    """The results of all kernels: sum, mean times count, squared deviations, largest, smallest."""
    total = reduced(reduce.deviations, x, 0.0, np.zeros((x.shape[1], x.shape[3])), True, threads)
    squares = reduced(reduce.deviations, x, 1.0, total / (x.shape[0] * x.shape[2]), True, threads)
    top, bottom = (reduced(reduce.largest, x, sign, threads=threads) for sign in (1.0, -1.0))
    return reduced(reduce.sums, x, threads=threads), total, squares, top, bottom


def naive(x):
    """The same, one result after another, each rounded once."""
    results = []
    for b in range(x.shape[1]):
        for d in range(x.shape[3]):
            numbers = [float(x[a, b, c, d]) for a in range(x.shape[0]) for c in range(x.shape[2])]
            total = math.fsum(numbers)
            mean = total / len(numbers)
            squares = math.fsum((n - mean) ** 2 for n in numbers)
            results.append((total, total, squares, max(numbers), min(numbers)))
    return np.array(results).T.reshape(5, x.shape[1], x.shape[3])


def numbers(shape, dtype, seed=0):
    return (3 * np.random.default_rng(seed).standard_normal(shape) + 5).astype(dtype)


@DTYPES
@CASES
def test_values(shape, dtype):
    x = numbers(shape, dtype)
    total, wide, squares, top, bottom = everything(x)
    exact = naive(x)
    np.testing.assert_allclose(total, exact[0], SINGLE if dtype == "float32" else 1e-14)
    np.testing.assert_allclose(wide, exact[1], 1e-14)
    np.testing.assert_allclose(squares, exact[2], 1e-13)
    np.testing.assert_array_equal(top, exact[3])
    np.testing.assert_array_equal(bottom, exact[4])
    count = shape[0] * shape[2]
    np.testing.assert_allclose(
        reduced(reduce.sums, x, count), exact[0] / count, SINGLE if dtype == "float32" else 1e-14
    )


@DTYPES
@CASES
def test_products(shape, dtype):
    x = np.random.default_rng(1).uniform(0.99, 1.01, shape).astype(dtype)
    x[:, 0, 0, 0] *= -1
    one, two = (reduced(reduce.products, x, threads=threads) for threads in (1, 2))
    exact = x.astype(np.float64).prod((0, 2))
    np.testing.assert_allclose(
        one, exact, 20 * SINGLE if dtype == "float32" else 1e-12
    )  # errors of up to 17000 factors
    assert one.tobytes() == two.tobytes()


@DTYPES
@CASES
def test_bits_do_not_depend_on_threads(shape, dtype):
    x = numbers(shape, dtype, 1)
    for one, two in zip(everything(x), everything(x, 2), strict=True):
        assert one.tobytes() == two.tobytes()


@pytest.mark.skipif(PLAIN, reason="too many numbers for plain Python")
@DTYPES
def test_bits_of_many_chunks_do_not_depend_on_threads(dtype):
    for shape in ((1, 1, 3_000_000, 1), (16, 8, 7000, 1), (1, 5000, 130, 1), (1, 1, 40_000, 20), (1, 8, 300, 700)):
        x = numbers(shape, dtype, 1)
        for one, two in zip(everything(x), everything(x, 2), strict=True):
            assert one.tobytes() == two.tobytes()


@DTYPES
@pytest.mark.parametrize("shape", [(1, 2, 70, 1), (3, 2, 5, 1), (1, 2, 70, 3), (1, 2, 9, 70)])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_nan_and_infinities(shape, dtype, place):
    a, b, c, d = shape
    for special, results in (
        ((np.nan,), (np.nan, np.nan, np.nan, np.nan)),
        ((np.inf,), (np.inf, np.nan, np.inf, None)),
        ((-np.inf,), (-np.inf, np.nan, None, -np.inf)),
        ((np.inf, -np.inf), (np.nan, np.nan, np.inf, -np.inf)),
    ):
        x = numbers(shape, dtype)
        for k, value in enumerate(special):
            x[0, 1, (place + k) % c, -1] = value
        with np.errstate(invalid="ignore"):
            made, clean = everything(x), everything(numbers(shape, dtype))
        for got, wanted, before in zip((made[0], *made[2:]), results, (clean[0], *clean[2:]), strict=True):
            if wanted is not None:
                np.testing.assert_equal(got[1, -1], wanted)
            np.testing.assert_array_equal(got[0], before[0])


@DTYPES
def test_extrema_of_infinities_and_zeros(dtype):
    x = np.full((1, 1, 100, 1), -np.inf, dtype)
    assert reduced(reduce.largest, x) == -np.inf and reduced(reduce.largest, -x, -1.0) == np.inf
    x[...] = 0.0
    assert reduced(reduce.largest, x) == 0.0


@pytest.mark.parametrize("shape", [(1, 1, 20_000, 1), (1, 2, 600, 17), (4, 3, 900, 1)])
def test_a_large_mean_costs_no_digits(shape):
    x = (np.random.default_rng(2).standard_normal(shape) + 1e6).astype(np.float32)
    total, wide, squares, *_ = everything(x)
    exact = naive(x)
    np.testing.assert_allclose(total, exact[0], SINGLE)
    np.testing.assert_allclose(wide, exact[1], 1e-14)
    np.testing.assert_allclose(squares, exact[2], 1e-9)


# ---- the way back -----------------------------------------------------------------------------------------------------
@DTYPES
@CASES
def test_spread_over(shape, dtype):
    y = numbers((1, shape[1], 1, shape[3]), dtype)
    for threads in (1, 2):
        x = np.full(shape, np.nan, dtype)
        reduce_back.spread_over(y.reshape(-1), x.reshape(-1), runs.cuts_of(*shape), threads)
        np.testing.assert_array_equal(x, np.broadcast_to(y, shape))


@pytest.mark.skipif(PLAIN, reason="too many numbers for plain Python")
@pytest.mark.parametrize(
    "shape", [(3, 7, 9000, 1), (2, 3, 50, 700), (1, 40_000, 3, 1), (1, 2, 40_000, 3), (1, 9, 17, 1), (2, 3, 900, 17)]
)
def test_spread_over_many_chunks(shape):
    y, x = numbers((1, shape[1], 1, shape[3]), "float32"), np.full(shape, np.nan, "float32")
    reduce_back.spread_over(y.reshape(-1), x.reshape(-1), runs.cuts_of(*shape), 2)
    np.testing.assert_array_equal(x, np.broadcast_to(y, shape))


@DTYPES
@CASES
def test_spread_extremum(shape, dtype):
    x = np.random.default_rng(7).integers(0, 4, shape).astype(dtype)  # many equal ones
    x[0, -1, -1, 0] = np.nan
    g = numbers((1, shape[1], 1, shape[3]), dtype)
    top = x.max((0, 2), keepdims=True)
    tells = (x == top) | np.isnan(x)
    made = []
    for threads in (1, 2):
        dx = np.full(shape, np.inf, dtype)
        flat = [t.reshape(-1) for t in (x, top, g, dx)]
        reduce_back.spread_extremum(*flat, runs.cuts_of(*shape), False, threads)
        shares = np.where(tells, g / tells.sum((0, 2), keepdims=True), 0)
        np.testing.assert_allclose(dx, shares, 1e-6)
        made.append(dx.tobytes())
        reduce_back.spread_extremum(*flat, runs.cuts_of(*shape), True, threads)
        np.testing.assert_allclose(dx, np.where(np.isnan(top), np.nan, shares), 1e-6)
    assert made[0] == made[1]


@DTYPES
def test_quotients(dtype):
    sums, out = np.arange(9.0), np.empty(9, dtype)
    reduce.quotients(sums, 7.0, out)
    np.testing.assert_array_equal(sums, np.arange(9.0) / 7)
    np.testing.assert_array_equal(out, (np.arange(9.0) / 7).astype(dtype))


# ---- places -------------------------------------------------------------------------------------------------------------
@DTYPES
@pytest.mark.parametrize(
    "shape", [(5, 3, 1), (3, 64, 1), (2, 200, 1), (300, 7, 1), (2, 9, 5), (1, 40, 600), (1, 1, 4), (4, 1, 1)]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_argument(shape, sign, dtype):
    """The first of equals, of NaN, and of infinities."""
    x = np.random.default_rng(2).integers(-3, 4, shape).astype(dtype)
    x[0, shape[1] // 2 :, 0] = np.nan
    x[-1, :, -1] = -np.inf * sign
    for threads in (1, 2):
        out = np.full((shape[0], shape[2]), -1)
        argument.argument(x.reshape(-1), out.reshape(-1), *shape[1:], sign, threads)
        np.testing.assert_array_equal(out, (x * sign).argmax(1))


@CASES
@DTYPES
def test_norms_and_what_is_not_zero(shape, dtype):
    x = numbers(shape, dtype)
    x[np.abs(x) < 0.3] = 0
    exact = (x.astype(np.float64) ** 2).sum((0, 2))
    for threads in (1, 2):
        added = reduced(reduce.squares, x, wide=True, threads=threads)
        np.testing.assert_allclose(added, exact, 1e-12)
        np.testing.assert_allclose(reduced(reduce.norms, x, threads=threads), np.sqrt(exact), SINGLE)
        np.testing.assert_array_equal(reduced(reduce.truths, x, wide=True, threads=threads), (x != 0).sum((0, 2)))
        np.testing.assert_array_equal(reduced(reduce.some, x, threads=threads), (x != 0).any((0, 2)))
        np.testing.assert_array_equal(reduced(reduce.every, x, threads=threads), (x != 0).all((0, 2)))
        rooted = reduced(reduce.roots, added[None, :, None, :], threads=threads)
        np.testing.assert_allclose(rooted, np.sqrt(exact), 1e-12)


def test_squares_beyond_the_dtype_have_a_norm():
    for scale in (1e25, 1e-25):  # their squares overflow and vanish in float32
        x = (numbers((1, 2, 70, 1), "float32") * np.float32(scale)).astype(np.float32)
        exact = np.sqrt((x.astype(np.float64) ** 2).sum((0, 2)))
        np.testing.assert_allclose(reduced(reduce.norms, x), exact, 1e-6)
