"""Normalisation kernels against naive loops in float64: every cut, one and two threads, large means, NaN and inf."""

from __future__ import annotations

import numpy as np
import pytest

from funcnn.kernels.cpu.norm import layer_norm, order
from funcnn.kernels.cpu.norm import planes as norm
from funcnn.kernels.cpu.norm import scale as norm_scale
from funcnn.kernels.cpu.norm.runs import PIECE_ELEMENTS

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
EPS = 1e-5
# shape, groups (0: batch norm), units in a chunk and blocks in a unit
CUTS = [
    ((4, 3, 5), 0, (1, 1)), ((8, 4, 1), 0, (3, 1)), ((2, 3, 2500), 0, (2, 1)), ((6, 2, 30), 0, (1, 3)),
    ((1, 2, 9000), 0, (1, 4)), ((3, 6, 7), 2, (4, 1)), ((2, 4, 2100), 1, (1, 5)), ((2, 4, 6), 4, (1, 1)),
]  # fmt: skip
CASES = pytest.mark.parametrize("shape, groups, cut", CUTS)
ROWS = pytest.mark.parametrize(
    "rows, groups, size, each",
    [(7, 1, 5, 2), (4, 1, 2300, 3), (6, 3, 4, 1), (9, 1, 64, 256), (20, 2, 33, 7), (3, 1, 20_000, 2)],
)


def units(shape, groups):
    """Units, layout and place of the weights, as the wrapper gives them."""
    n, c, s = shape
    if not groups:
        return c, (n, s, c * s, s), (c, 1, 0)
    return n * groups, (c // groups, s, s, c // groups * s), (groups, c // groups, 1)


def plan(x, groups, cut):
    count, layout, place = units(x.shape, groups)
    return count, layout[0] * -(-layout[1] // PIECE_ELEMENTS), np.array([*layout, *place, *place, *cut])


def forward(x, w, b, groups=0, cut=(1, 1), threads=1, past=False):
    count, _, numbers = plan(x, groups, cut)
    y, stats = np.full_like(x, np.nan), np.full((3, count), np.nan, x.dtype)
    room = np.empty(threads * PIECE_ELEMENTS, x.dtype)
    norm.normalize(x, y, w, b, *stats, np.empty((count * cut[1], 3)), room, numbers, EPS, past, threads)
    return y, *stats


def backward(dy, x, w, mean, rstd, groups=0, cut=(1, 1), threads=1, past=False):
    count, pieces, numbers = plan(x, groups, cut)
    dx, (dweight, dbias) = np.full_like(x, np.nan), np.full((2, x.shape[1]), np.nan, x.dtype)
    dots, room = np.empty((count * (pieces + 1), 3)), np.empty(threads * PIECE_ELEMENTS, x.dtype)
    sums = np.empty(2 * x.shape[1])
    norm.normalize_grad(dy, x, dx, w, mean, rstd, dweight, dbias, sums, dots, room, numbers, past, threads)
    return dx, dweight, dbias


def naive(x, w, b, dy, groups):
    """y, mean, rstd, var, dx, dweight and dbias, one unit after another."""
    n, c, s = x.shape
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    y, dx, xhat, stats = np.empty_like(x), np.empty_like(x), np.empty_like(x), []
    if not groups:
        where = [(slice(None), [k]) for k in range(c)]
    else:
        k = c // groups
        where = [([i], slice(g * k, g * k + k)) for i in range(n) for g in range(groups)]
    for unit in where:
        mean, var = x[unit].mean(), x[unit].var()
        rstd = 1 / np.sqrt(var + EPS)
        xhat[unit] = (x[unit] - mean) * rstd
        gain = (dy * w[:, None])[unit]
        dx[unit] = rstd * (gain - gain.mean() - xhat[unit] * (gain * xhat[unit]).mean())
        stats.append((mean, rstd, var))
    y = xhat * w[:, None] + b[:, None]
    return y, *np.array(stats).T, dx, (dy * xhat).sum((0, 2)), dy.sum((0, 2))


def arrays(shape, dtype, offset=3.0):
    rng = np.random.default_rng(0)
    x, dy = 2 * rng.standard_normal(shape) + offset, rng.standard_normal(shape)
    return [a.astype(dtype) for a in (x, rng.standard_normal(shape[1]), rng.standard_normal(shape[1]), dy)]


def everything(x, w, b, dy, groups, cut, threads=1, past=False):
    out = forward(x, w, b, groups, cut, threads, past)
    return *out, *backward(dy, x, w, *out[1:3], groups, cut, threads, past)


@DTYPES
@CASES
def test_units_against_loops(shape, groups, cut, dtype):
    x, w, b, dy = arrays(shape, dtype)
    tolerance = 3e-5 if dtype == "float32" else 1e-11
    for got, expected in zip(everything(x, w, b, dy, groups, cut), naive(x, w, b, dy, groups), strict=True):
        np.testing.assert_allclose(got, expected, tolerance, tolerance * 3)


@DTYPES
@CASES
def test_units_have_the_same_bits_on_two_threads_and_past_the_cache(shape, groups, cut, dtype):
    given = arrays(shape, dtype)
    runs = [everything(*given, groups, cut, threads, past) for threads, past in ((1, False), (2, False), (2, True))]
    for one, two, three in zip(*runs, strict=True):
        assert one.tobytes() == two.tobytes() == three.tobytes()


def test_numbers_far_from_the_first_ones_cost_no_digits():
    x, w, b, dy = arrays((16, 2, 400), "float32", 0)
    x[3:] += 1000
    x[0, :, :50] = -500
    for groups, cut in ((0, (1, 1)), (0, (1, 5)), (2, (1, 1))):
        _, mean, rstd, var = forward(x, w, b, groups, cut)
        _, mean_, rstd_, var_ = naive(x, w, b, dy, groups)[:4]
        np.testing.assert_allclose(mean, mean_, 1e-6, 1e-3)  # of a standard deviation of 200
        np.testing.assert_allclose(var, var_, 1e-5)
        np.testing.assert_allclose(rstd, rstd_, 1e-5)


@pytest.mark.parametrize("offset", [1e4, 1e5, 1e6])
@pytest.mark.parametrize("cut", [(1, 1), (1, 3)])
def test_a_large_mean_costs_no_digits(offset, cut):
    x, w, b, dy = arrays((16, 2, 256), "float32", offset)
    for got, expected in zip(everything(x, w, b, dy, 0, cut), naive(x, w, b, dy, 0), strict=True):
        np.testing.assert_allclose(got, expected, 2e-5, 2e-5)


def test_a_constant_channel_is_zero():
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    y, _, rstd, var = forward(np.full((3, 1, 4), 7.5, np.float32), one, zero)
    assert not y.any() and not var.any() and np.isclose(rstd[0], EPS**-0.5)


@DTYPES
def test_nan_and_inf_stay_in_their_channel(dtype):
    x, _, _, dy = arrays((2, 3, 4), dtype)
    w, b = np.ones(3, dtype), np.zeros(3, dtype)
    x[0, 0, 1], x[1, 2, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore"):  # where kernels run as plain Python
        y, mean, rstd, var, dx, dweight, dbias = everything(x, w, b, dy, 0, (1, 1))
    assert np.isnan(y[:, [0, 2]]).all() and np.isfinite(y[:, 1]).all()
    assert np.isnan(mean[0]) and not np.isfinite(mean[2]) and np.isnan(var[[0, 2]]).all() and np.isfinite(rstd[1])
    assert np.isnan(dx[:, [0, 2]]).all() and np.isfinite(dx[:, 1]).all()
    assert np.isnan(dweight[[0, 2]]).all() and np.isfinite(dweight[1]) and np.isfinite(dbias).all()


@DTYPES
@pytest.mark.parametrize("shape", [(3, 5, 1), (2, 3, 7), (1, 2, 5000)])
def test_scale_channels(shape, dtype):
    x, w, b, dy = arrays(shape, dtype)
    mean, var, scale = dy[0, :, 0].copy(), dy[0, :, 0] ** 2, np.empty(shape[1], dtype)
    room, expected = (
        np.empty(2 * PIECE_ELEMENTS, dtype),
        (x - mean[:, None]) * (w / np.sqrt(var + EPS))[:, None] + b[:, None],
    )
    for threads, past in ((1, False), (2, False), (2, True)):
        y = np.full_like(x, np.nan)
        norm_scale.scale_channels(x, y, mean, var, w, b, scale, EPS, 2, room, past, threads)
        np.testing.assert_allclose(y, expected, 1e-5, 1e-5)


@DTYPES
@pytest.mark.parametrize("shape", [(3, 5, 1), (9, 2, 7), (17, 3, 15)])
def test_images_are_put_in_front_of_channels(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for threads in (1, 2):
        y = np.full_like(x, np.nan)
        order.batch_first(np.ascontiguousarray(x.swapaxes(0, 1)), y, threads)
        np.testing.assert_array_equal(y, x)


@DTYPES
def test_running_statistics(dtype):
    held, batch = np.random.default_rng(0).standard_normal((2, 37)).astype(dtype)
    out = np.full_like(held, np.nan)
    norm_scale.follow(held, batch, out, 0.9, 0.1)
    np.testing.assert_array_equal(out, held * 0.9 + batch * 0.1)


# ---- rows -----------------------------------------------------------------------------------------------------------
def rowwise(x, w, b, dy, groups, each, centred, threads, past=False):
    """y, mean, rstd, dx, dweight and dbias of rows."""
    rows, size = x.shape
    y, dx, mean, rstd = np.full_like(x, np.nan), np.full_like(x, np.nan), *(np.empty(rows, x.dtype) for _ in range(2))
    room = np.empty(threads * PIECE_ELEMENTS, x.dtype)
    layer_norm.normalize_rows(x, y, w, b, mean, rstd, each, groups, EPS, centred, room, past, threads)
    dweight, dbias = (np.full((groups, size), np.nan, x.dtype) for _ in range(2))
    sums, blocks = np.full((groups, 2, size), np.nan), -(-(rows // groups) // each)
    parts, factors = (
        np.full((groups * blocks, 2, size), np.nan, x.dtype),
        np.empty(threads * layer_norm.FACTOR_ELEMENTS, x.dtype),
    )
    layer_norm.normalize_rows_grad(
        dy, x, dx, w, mean, rstd, dweight.ravel(), dbias.ravel(), sums, parts, factors, each, groups, centred, room, past, threads
    )  # fmt: skip
    return y, mean, rstd, dx, dweight, dbias


def naive_rows(x, w, b, dy, groups, centred):
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    w, b = w.reshape(groups, -1), b.reshape(groups, -1)
    y, dx, stats = np.empty_like(x), np.empty_like(x), []
    dweight, dbias = np.zeros_like(w), np.zeros_like(b)
    for r, row in enumerate(x):
        g = r % groups
        mean = row.mean() if centred else 0.0
        rstd = 1 / np.sqrt(((row - mean) ** 2).mean() + EPS)
        xhat, gain = (row - mean) * rstd, dy[r] * w[g]
        y[r] = xhat * w[g] + b[g]
        dx[r] = rstd * (gain - (gain.mean() if centred else 0.0) - xhat * (gain * xhat).mean())
        dweight[g] += dy[r] * xhat
        dbias[g] += dy[r]
        stats.append((mean, rstd))
    return y, *np.array(stats).T, dx, dweight, dbias


@DTYPES
@ROWS
@pytest.mark.parametrize("centred", [True, False])
def test_rows_against_loops(rows, groups, size, each, centred, dtype):
    rng = np.random.default_rng(1)
    x, dy = (rng.standard_normal((rows, size)).astype(dtype) for _ in range(2))
    w, b = (rng.standard_normal(groups * size).astype(dtype) for _ in range(2))
    ways = ((1, False), (2, False), (2, True))
    runs = [rowwise(x, w, b, dy, groups, each, centred, threads, past) for threads, past in ways]
    tolerance = 3e-5 if dtype == "float32" else 1e-11
    for one, two, three, expected in zip(*runs, naive_rows(x, w, b, dy, groups, centred), strict=True):
        np.testing.assert_allclose(one, expected, tolerance, tolerance)
        assert one.tobytes() == two.tobytes() == three.tobytes()


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_rows_with_a_large_mean(offset):
    rng = np.random.default_rng(2)
    x, dy = (rng.standard_normal((5, 300)) + off for off in (offset, 0))
    given = [a.astype(np.float32) for a in (x, rng.standard_normal(300), rng.standard_normal(300), dy)]
    for got, expected in zip(rowwise(*given, 1, 2, True, 1), naive_rows(*given, 1, True), strict=True):
        np.testing.assert_allclose(got, expected, 2e-5, 2e-5)


@pytest.mark.parametrize("centred", [True, False])
def test_rows_let_nan_through_in_their_row(centred):
    x, dy, w, b = np.ones((3, 4)), np.ones((3, 4)), np.ones(4), np.zeros(4)
    x[1, 2] = np.nan
    y, _, _, dx, dweight, dbias = rowwise(x, w, b, dy, 1, 2, centred, 1)
    assert np.isnan(y[1]).all() and np.isnan(dx[1]).all() and np.isnan(dweight).all() and np.isfinite(dbias).all()
    assert np.isfinite(y[[0, 2]]).all() and np.isfinite(dx[[0, 2]]).all()
