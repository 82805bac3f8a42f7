"""Pooling kernels against loops over windows, and against PyTorch where windows run over the right edge."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu.launching import Refused, Runner
from funcnn.kernels.cpu.pool import avg as avg_pool
from funcnn.kernels.cpu.pool import launch, launch_avg, launch_max
from funcnn.kernels.cpu.pool import max as max_pool
from funcnn.kernels.cpu.pool.geometry import Window
from funcnn.kernels.cpu.pool.windows import adaptive_windows, windows
from funcnn.kernels.cpu.threads import number
from funcnn.kernels.cpu.vector.lanes import LANES
from funcnn.kernels.implementation import operand_of
from funcnn.kernels.launch import Constant
from tests.plain import PLAIN, plain

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
    "wide, step 1": ((2, 1, 5, 37), (1, 5, 37), (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1)),
    "wide, step 2": ((3, 1, 6, 71), (1, 3, 36), (1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1)),
    "wide, step 3": ((2, 1, 6, 61), (1, 2, 20), (1, 3, 4), (1, 3, 3), (0, 0, 0), (1, 1, 1)),
    "wide, step 4, padded": ((2, 1, 5, 71), (1, 3, 18), (1, 3, 4), (1, 2, 4), (0, 1, 2), (1, 1, 1)),
    "wide, step 5, dilated": ((2, 1, 3, 83), (1, 3, 17), (1, 1, 3), (1, 1, 5), (0, 0, 1), (1, 1, 2)),
    "wide, step 8": ((1, 1, 2, 133), (1, 2, 17), (1, 1, 8), (1, 1, 8), (0, 0, 4), (1, 1, 1)),
    "step over the width": ((2, 1, 4, 5), (1, 2, 1), (1, 2, 4), (1, 2, 9), (0, 0, 0), (1, 1, 1)),
    "wide, all 16": ((2, 1, 4, 64), (1, 2, 32), (1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1)),
    "padding in front": ((1, 3, 2, 9), (3, 2, 7), (3, 1, 3), (1, 1, 1), (1, 0, 0), (1, 1, 1)),
    "rows of padding": ((2, 1, 1, 8), (1, 1, 8), (1, 2, 1), (1, 1, 1), (0, 1, 0), (1, 2, 1)),
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


def by_places(ways, ins, out, **params):
    """Fill ``out`` by the plan of arrays (images, D, H, W) and their places."""
    ins = [array[:, None] for array in ins]
    fill(ways[0].plan(tuple(map(operand_of, ins)), params), ins, [out.reshape(out.shape[0], 1, -1)])


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


def fill(plan, ins, outs):
    """Run a plan."""
    Runner(plan, tuple(map(operand_of, ins)), tuple(map(operand_of, outs)))(list(ins), list(outs))


def run_max(x, out, where, past=False):
    """Values and indices; the kernel without indices agrees."""
    y, argmax = np.empty((x.shape[0], *out), x.dtype), np.empty((x.shape[0], *out), np.int32)
    fill(
        launch_max.rows_with_places(x.shape, y.shape, Window(*where), x.dtype, argmax.dtype, 2, past, 1),
        [x],
        [y, argmax],
    )
    values = np.empty_like(y)
    fill(launch_max.rows_of_values(x.shape, y.shape, Window(*where), x.dtype, 2, past, 1), [x], [values])
    np.testing.assert_array_equal(values, y)
    return y, argmax


def run_windows(x, bounds, outs, work=1):
    """Values and indices of windows of any bounds into ``outs``."""
    shape = outs[0].shape
    fill(launch_max.windows_plan(x.shape, shape, x.dtype, Constant(bounds), 1, 2, work), [x], outs)


def run_avg(x, dy, where, include, override):
    """The means and the gradient, by the kernels of windows of one size and by those of any bounds."""
    kernel, stride, padding = where
    how = kernel, stride, padding, include, override
    step = stride[2] if stride[2] == 1 or (stride[2] == 2 and kernel[2] > 1) else 0
    y, dx, any_y, any_dx = (
        np.full_like(dy, np.nan),
        np.full_like(x, np.nan),
        np.full_like(dy, np.nan),
        np.full_like(x, np.nan),
    )
    if x.size:
        shapes, steps = (dy.shape, x.shape, how), (kernel[2], step, padding[2])
        fill(launch_avg.rows_of_means(x.shape, dy.shape, how, x.dtype, 2, False, 1), [x], [y])
        fill(launch_avg.rows_of_grads(*shapes, steps, x.dtype, 2, False, 1), [dy], [dx])
        fill(launch_avg.windows_of_means(x.shape, dy.shape, how, x.dtype, 2, 1), [x], [any_y])
        fill(launch_avg.rows_of_grads(*shapes, (1, 0, 0), x.dtype, 2, False, 1), [dy], [any_dx])
    return (y, dx), (any_y, any_dx)


@DTYPES
@ROWS
def test_max_pool_and_its_gradient(case, dtype):
    shape, out, *where = case
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, shape).astype(dtype)  # many equals
    y, argmax = run_max(x, out, where)
    expected, known = naive_max(x, out, where)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(argmax, known)
    dy, dx, back = rng.standard_normal(y.shape).astype(dtype), np.full_like(x, np.nan), np.full_like(y, np.nan)
    if shape[0]:
        by_places(launch.scatters, [dy, argmax], dx, size=shape[1:])
        by_places(launch.gathers, [x, argmax], back)
    scattered = np.zeros(shape)
    for m in range(shape[0]):
        real = known[m] >= 0
        np.add.at(scattered[m].reshape(-1), known[m][real], dy[m][real])
    np.testing.assert_allclose(dx, scattered, 1e-5, 1e-6)
    np.testing.assert_array_equal(back, np.where(known >= 0, expected, 0))


@DTYPES
@pytest.mark.parametrize("spans", [((0, 2), (1, 3)), ((0, 5), (3, 9)), ((0, 19), (2, 19)), ((0, 40), (4, 4))], ids=str)
def test_the_largest_of_windows_of_any_bounds(spans, dtype):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 6, (3, 2, 3, 40)).astype(dtype)
    x[1, 0, 1, 3:7:2] = np.nan
    bounds = np.array([[(0, 2), (0, 2), (1, 3), *spans]], np.int64)
    y, argmax = np.empty((3, 1, 2, 2), dtype), np.empty((3, 1, 2, 2), np.int32)
    run_windows(x, bounds, [y, argmax])
    for m, p, q in product(range(3), range(2), range(2)):
        (h0, h1), (w0, w1) = bounds[0, 1 + p], spans[q]
        values = x[m, :2, h0:h1, w0:w1].ravel()
        known = np.arange(x[0].size).reshape(x.shape[1:])[:2, h0:h1, w0:w1].ravel()
        nan = np.flatnonzero(np.isnan(values))
        best = nan[-1] if nan.size else np.argmax(values) if values.size else None
        expected = (-np.inf, -1) if best is None else (values[best], known[best])
        np.testing.assert_array_equal((y[m, 0, p, q], argmax[m, 0, p, q]), expected)


@DTYPES
def test_max_pool_of_nan_and_infinities(dtype):
    x = np.full((1, 1, 4, 6), -np.inf, dtype)
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = np.nan
    x[0, 0, 2, 3], x[0, 0, 3, 2] = np.inf, 1
    where = ((1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1))
    y, argmax = run_max(x, (1, 2, 3), where)
    expected, known = naive_max(x, (1, 2, 3), where)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(argmax, known)
    assert np.isnan(y[0, 0, 0, 0]) and argmax[0, 0, 0, 0] == 6 and argmax[0, 0, 0, 1] == 2


@DTYPES
@pytest.mark.parametrize("include, override", [(True, 0), (False, 0), (True, 5)])
@pytest.mark.parametrize("case", UNDILATED)
def test_avg_pool_and_its_gradient(case, include, override, dtype):
    shape, out, *where, _ = case
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal((shape[0], *out)).astype(dtype)
    expected = naive_avg(x, dy, where, include, override)
    for pair in run_avg(x, dy, where, include, override):
        for got, numbers in zip(pair, expected, strict=True):
            np.testing.assert_allclose(got, numbers, 1e-5, 1e-6)


def test_avg_pool_lets_nan_through():
    for columns in (4, 40):
        x, dy = np.ones((1, 1, 2, columns), np.float32), np.ones((1, 1, 1, columns // 2), np.float32)
        x[0, 0, 1, 3] = np.nan
        for y, _ in run_avg(x, dy, ((1, 2, 2), (1, 2, 2), (0, 0, 0)), True, 0):
            assert np.isnan(y[0, 0, 0, 1]) and (np.delete(y[0, 0, 0], 1) == 1).all()


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
        dy = np.ones((2, 1, *expected.shape[1:]))
        for y, _ in run_avg(x, dy, where, include, override or 0):
            np.testing.assert_allclose(y[:, 0], expected, 1e-12)
        best, known = torch.nn.functional.max_pool2d(theirs, *args[:3], 1, ceil_mode, return_indices=True)
        y, argmax = run_max(x, (1, *best.shape[1:]), (*where, (1, 1, 1)))
        np.testing.assert_array_equal(y[:, 0], best.numpy())
        np.testing.assert_array_equal(argmax[:, 0], known.numpy())


# ---- threads ----------------------------------------------------------------------------------------------------------
def ways(x, dy):
    """Every pooling kernel's outputs."""
    (_, _, H, W), (M, _, P, Q) = x.shape, dy.shape
    where, dtype = ((1, 3, 3), (1, 2, 2), (0, 1, 1)), x.dtype
    how, many = (*where, False, 0), 1e9
    y, any_y, dx, any_dx = np.empty_like(dy), np.empty_like(dy), np.empty_like(x), np.empty_like(x)
    best, known, again, found = (
        np.empty_like(dy),
        np.empty(dy.shape, np.int32),
        np.empty_like(dy),
        np.empty(dy.shape, np.int32),
    )
    scattered, gathered, placed = (
        np.empty((M, H * W), x.dtype),
        np.empty((M, P * Q), x.dtype),
        np.empty((M, H * W), x.dtype),
    )
    values, means, spread = np.empty_like(dy), np.empty(M * H, x.dtype), np.empty((M * H, W), x.dtype)
    shapes, back = (x.shape, dy.shape), (dy.shape, x.shape, how)
    fill(launch_max.rows_with_places(*shapes, Window(*where), dtype, known.dtype, 7, True, many), [x], [best, known])
    fill(launch_max.rows_of_values(*shapes, Window(*where), dtype, 7, True, many), [x], [values])
    run_windows(x, windows((1, H, W), (1, P, Q), *where, False, 0).bounds, [again, found], many)
    count = number.get_num_threads()
    by_places(launch.scatters, [dy, known], scattered, size=(H, W))
    by_places(launch.gathers, [x, known], gathered)
    by_places(launch.unpools, [dy, known], placed, size=(H, W))
    fill(launch_avg.rows_of_means(*shapes, how, dtype, 7, True, many), [x], [y])
    fill(launch_avg.windows_of_means(*shapes, how, dtype, 7, many), [x], [any_y])
    fill(launch_avg.rows_of_grads(*back, (3, 2, 1), dtype, 7, True, many), [dy], [dx])
    fill(launch_avg.rows_of_grads(*back, (1, 0, 0), dtype, 7, False, many), [dy], [any_dx])
    avg_pool.mean_rows(x.reshape(-1, W), means, 7, count)
    avg_pool.mean_rows_grad(means, spread, 7, count)
    return best, known, again, found, scattered, gathered, placed, y, any_y, dx, any_dx, means, spread, values


@DTYPES
def test_the_same_bits_for_any_number_of_threads(dtype):
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((13, 1, 30, 45)).astype(dtype), rng.standard_normal((13, 1, 15, 23)).astype(dtype)
    before = number.get_num_threads()
    try:
        number.set_num_threads(1)
        one = ways(x, dy)
        number.set_num_threads(2)
        two = ways(x, dy)
    finally:
        number.set_num_threads(before)
    for a, b in zip(one, two, strict=True):
        assert a.tobytes() == b.tobytes()
    np.testing.assert_array_equal(one[0], one[2])  # the two kernels of maxima agree
    np.testing.assert_array_equal(one[1], one[3])
    np.testing.assert_array_equal(one[5], one[0].reshape(13, -1))
    np.testing.assert_allclose(one[9], one[10], 1e-5, 1e-6)
    np.testing.assert_allclose(one[11], x.reshape(-1, 45).mean(1), 1e-4, 1e-6)
    np.testing.assert_allclose(one[12][:, 44], one[11] / 45, 1e-6)


@DTYPES
def test_special_values_win_and_spread_as_in_pytorch(dtype):
    """In vector blocks and at borders alike; of several NaN the last is named."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x = rng.integers(-3, 3, (3, 1, 11, 43)).astype(dtype)
    for special in (np.nan, np.inf, -np.inf):
        x[rng.random(x.shape) < 0.1] = special
    x[2] = -np.inf
    for stride, columns in ((1, 43), (2, 22), (3, 15)):
        shape = (1, -(-11 // stride), columns)
        theirs = torch.from_numpy(x[:, 0])
        values, indices = torch.nn.functional.max_pool2d(theirs, 3, stride, 1, return_indices=True)
        where = ((1, 3, 3), (1, stride, stride), (0, 1, 1))
        y, argmax = run_max(x, shape, (*where, (1, 1, 1)))
        np.testing.assert_array_equal(y[:, 0], values.numpy())
        np.testing.assert_array_equal(argmax[:, 0], indices.numpy())
        means = torch.nn.functional.avg_pool2d(theirs, 3, stride, 1).numpy()
        for got, _ in run_avg(x, np.ones((3, *shape), dtype), where, True, 0)[:1]:
            np.testing.assert_allclose(got[:, 0], means, 1e-5, 1e-6)


def test_unpooling_tells_of_the_first_place_outside():
    x, index, y = np.ones((3, 1, 4)), np.zeros((3, 1, 4), np.int64), np.empty((3, 1, 5))
    index[1, 0, 2], index[2, 0, 0] = 5, -1
    plan = launch.unpools[0].plan((operand_of(x), operand_of(index)), {"size": (5,)})
    with pytest.raises(Refused) as refused:
        fill(plan, [x, index], [y])
    assert refused.value.words == (1, 1, 6, 5)


@DTYPES
@pytest.mark.parametrize("W", range(1, 19))
def test_narrow_windows_stay_inside_their_scratch(dtype, W):
    """A window narrower than a short vector takes a place of the kernel's table for every pixel."""
    x = np.random.default_rng(W).standard_normal((1, 2, 3, W)).astype(dtype)
    for Q in range(1, W + 1):
        bounds = adaptive_windows(x.shape[1:], (1, 1, Q)).bounds
        y, argmax = np.empty((1, 1, 1, Q), dtype), np.empty((1, 1, 1, Q), np.int64)
        each = max_pool.pieces_most(x.shape)
        scratch = np.empty(2 * LANES, dtype), np.empty(each, np.int64)
        plain(max_pool.window_max)(x, y, argmax, True, bounds, *scratch, each, 1, 1)
        again, found = np.empty_like(y), np.empty_like(argmax)
        if not PLAIN:  # a checking allocator looks at this one
            run_windows(x, bounds, [again, found])
            assert again.tolist() == y.tolist() and found.tolist() == argmax.tolist()
        starts, ends = bounds[0, 2:].T
        assert y.ravel().tolist() == [x[..., a:b].max() for a, b in zip(starts, ends, strict=True)]
        assert x.ravel()[argmax.ravel()].tolist() == y.ravel().tolist()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_of_fractional_pooling(dims, dtype):
    """Graham's formula (arXiv:1412.6071), a dimension at a time; the last window ends with the image."""
    from funcnn.kernels.cpu.pool.fractional import window_bounds

    pixels, windows, size = (7, 9, 8), (3, 4, 1), (2, 3, 2)
    if dims == 2:
        pixels, windows, size = (1, *pixels[1:]), (1, *windows[1:]), (1, *size[1:])
    samples = np.random.default_rng(0).random((3, dims)).astype(dtype)
    bounds = np.full((3, sum(windows), 2), -7)
    window_bounds(samples, bounds, (dims, *pixels, *windows, *size))
    kind = samples.dtype.type
    for m in range(3):
        us = [samples[m, 0], samples[m, 1], samples[m, 2]] if dims == 3 else [None, samples[m, 1], samples[m, 0]]
        expected = []
        for s, o, k, u in zip(pixels, windows, size, us, strict=True):
            if u is None:
                expected.append((0, 1))
                continue
            alpha = kind(s - k) / kind(max(o - 1, 1))
            starts = [int((kind(i) + u) * alpha) - int(u * alpha) for i in range(o - 1)] + [s - k]
            expected += [(start, start + k) for start in starts]
        np.testing.assert_array_equal(bounds[m], expected)
