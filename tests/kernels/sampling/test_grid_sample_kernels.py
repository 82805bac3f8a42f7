"""Sampling kernels against loops over places and taps, and their gradients against finite differences and transposes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from funcnn.kernels.cpu.sampling import grid_sample
from funcnn.kernels.cpu.sampling.grid_taps import BLOCK_POINTS, ROOM_FLOATS, ROOM_INTS

HOWS = [how for how in product((1, 2, 4), (0, 1, 2), (False, True))]


def run(kernel, before, grid, out, image, how):
    """The output, after checking that one and two threads give the same bits."""
    seen = []
    for threads in (1, 2):
        out.fill(np.nan)
        room = (
            ROOM_FLOATS
            + grid_sample.GROUP_CHANNELS * (BLOCK_POINTS + int(np.prod(image)))
            + grid_sample.TRANSPOSED_POINTS * before[0].size
        )
        ints, floats = np.empty(threads * ROOM_INTS, np.int64), np.empty(threads * room, grid.dtype)
        kernel(*before, grid, out, image, how, np.array([0.5], grid.dtype), ints, floats, room, threads)
        seen.append(out.tobytes())
    assert seen[0] == seen[1]
    return out


def moved(x, size, padding, align):
    """A coordinate folded or clipped into the image."""
    if padding == 2:
        low, high = (0, size - 1) if align else (-0.5, size - 0.5)
        if high <= low:
            return 0.0
        x = abs(x - low) % (2 * (high - low))
        x = low + min(x, 2 * (high - low) - x)
    return min(max(x, 0), size - 1) if padding else x


def taps_of(g, size, how):
    """[(pixel, weight)] of one axis."""
    taps, padding, align = how
    x = (g + 1) / 2 * (size - 1) if align else ((g + 1) * size - 1) / 2
    if taps < 4:
        x = moved(x, size, padding, align)
    first = int(np.floor(x))
    t = x - first
    if taps == 1:
        found = [(int(np.rint(x)), 1.0)]
    elif taps == 2:
        found = [(first, 1 - t), (first + 1, t)]
    else:
        far = lambda x: -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
        near = lambda x: 1.25 * x**3 - 2.25 * x**2 + 1
        pixels = [int(np.rint(moved(float(first + k), size, padding, align))) for k in (-1, 0, 1, 2)]
        found = list(zip(pixels, (far(t + 1), near(t), near(1 - t), far(2 - t)), strict=True))
    return [(pixel, weight) for pixel, weight in found if 0 <= pixel < size]


def naive(x, grid, image, how):
    """Values (N, C, P), and the matrices (N, P, pixels) that make them."""
    n, places, axes = grid.shape
    matrix = np.zeros((n, places, *image))
    for b, p in product(range(n), range(places)):
        found = [taps_of(float(grid[b, p, a]), image[2 - a], how) for a in range(axes)]
        found += [[(0, 1.0)]] * (3 - axes)
        for (w, u), (h, v), (d, z) in product(*found):
            matrix[b, p, d, h, w] += u * v * z
    matrix = matrix.reshape(n, places, -1)
    return np.einsum("npi,nci->ncp", matrix, x), matrix


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize(("image", "axes"), [((1, 3, 4), 2), ((2, 3, 2), 3), ((1, 1, 1), 2)])
@pytest.mark.parametrize("channels", [3, 17])
def test_values_and_gradients(how, image, axes, channels):
    if how[0] == 4 and axes == 3:
        return
    rng = np.random.default_rng(0)
    n, c, places, pixels = 2, channels, BLOCK_POINTS + 3 if how == (2, 0, False) else 9, int(np.prod(image))
    x, grid, dy = (
        rng.normal(size=(n, c, pixels)),
        rng.uniform(-1.6, 1.6, (n, places, axes)),
        rng.normal(size=(n, c, places)),
    )
    value, matrix = naive(x, grid, image, how)
    turned = np.empty((n, pixels, c))
    grid_sample.transpose_images(x, turned, 2)
    np.testing.assert_array_equal(turned, x.transpose(0, 2, 1))
    dx = run(grid_sample.image_grad, [dy], grid, np.empty_like(x), image, how)
    np.testing.assert_allclose(dx, np.einsum("npi,ncp->nci", matrix, dy), 1e-11, 1e-11)
    for images in ([x, False], [turned, True]):
        y = run(grid_sample.sample, images, grid, np.empty_like(dy), image, how)
        np.testing.assert_allclose(y, value, 1e-11, 1e-11)
        dgrid = run(grid_sample.grid_grad, [dy, *images], grid, np.empty_like(grid), image, how)
        np.testing.assert_allclose(dgrid, slopes(x, grid, dy, image, how), 1e-6, 1e-6)


def slopes(x, grid, dy, image, how):
    """The gradient for the places by finite differences."""
    out = np.empty_like(grid)
    for a in range(grid.shape[-1]):
        step = np.zeros(grid.shape[-1])
        step[a] = 1e-6
        sides = [naive(x, grid + sign * step, image, how)[0] for sign in (1, -1)]
        out[:, :, a] = ((sides[0] - sides[1]) * dy).sum(1) / 2e-6
    return out


def test_float32():
    rng = np.random.default_rng(1)
    x, grid = rng.normal(size=(1, 2, 12)).astype(np.float32), rng.uniform(-1, 1, (1, 9, 2)).astype(np.float32)
    for taps in (1, 2, 4):
        y = run(grid_sample.sample, [x, False], grid, np.empty((1, 2, 9), np.float32), (1, 3, 4), (taps, 0, False))
        np.testing.assert_allclose(y, naive(x, grid, (1, 3, 4), (taps, 0, False))[0], 1e-4, 1e-4)
