"""Where sampled images are read: the taps of places, for a block of them at a time.

Images are (N, C, D, H, W), places (N, P, axes) in [-1, 1], axis 0 being W; a plane has D = 1 and two axes. Each step is a
loop over the places of a block without branches, so that it vectorises; the tables stay in the first-level cache.

Places that are no number follow PyTorch: padding takes NaN to the first pixel of a plane and the last of a volume (so, too,
the reflection of infinity); planes padded with zeros give NaN unless the nearest pixel is taken; cubic weights are NaN.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function
from funcnn.kernels.cpu.vector.instructions import pointer, shift

# SKIPPED: zeros, and what is no place adds nothing to the image's gradient.
ZEROS, BORDER, REFLECTION, SKIPPED = 0, 1, 2, 3
BLOCK_POINTS = 128  # places whose taps are worked out together
ROOM_INTS, ROOM_FLOATS = 28 * BLOCK_POINTS, 40 * BLOCK_POINTS  # room for the tables
INDEX_OFFSET, WEIGHT_OFFSET = 12 * BLOCK_POINTS, 24 * BLOCK_POINTS  # where the products of the axes' taps stand in it
FAR_PIXELS = 1e9  # pixels; an integer holds what is nearer, and what is further is outside


@device_function
def pad_places(x, slope, axes, width, padding, align, half, count):
    """Pixel coordinates moved into the image as the padding says, in place; the slopes become what is left of them."""
    one, zero = half + half, half - half
    low = zero if align else -half
    span = width - one if align else width
    if padding == REFLECTION:
        for b in range(count):
            way = abs(x[b] - low)
            flips = np.floor(way / (span if span > zero else one))
            rest = way - flips * span
            odd = flips - np.floor(flips * half) * (one + one) > half
            slope[b] = -slope[b] if (x[b] < low) != odd else slope[b]
            x[b] = (span - rest if odd else rest) + low
    if (padding == BORDER) | (padding == REFLECTION):
        last = width - one
        nowhere = zero if axes == 2 else last
        for b in range(count):
            at = x[b]
            slope[b] = slope[b] if (at > zero) & (at < last) else zero
            x[b] = last if at >= last else (at if at > zero else (zero if at <= zero else nowhere))


@device_function
def linear_taps(x, step, size, half, index, weight, slope, count):
    """The pixels before and after each place."""
    one = half + half
    for b in range(count):
        first = np.floor(x[b])
        past, i, s = x[b] - first, int(first), step[b]
        index[b] = i if (i >= 0) & (i < size) else -1
        index[BLOCK_POINTS + b] = i + 1 if (i >= -1) & (i < size - 1) else -1
        weight[b], weight[BLOCK_POINTS + b] = one - past, past
        slope[b], slope[BLOCK_POINTS + b] = -s, s


@device_function
def nearest_taps(x, size, half, index, weight, slope, count):
    """The nearest pixel, of two the even one."""
    one = half + half
    for b in range(count):
        first = np.floor(x[b])
        past, odd = x[b] - first, first - np.floor(first * half) * (one + one) > half
        i = int(first) + (1 if (past > half) | ((past == half) & odd) else 0)
        index[b] = i if (i >= 0) & (i < size) else -1
        weight[b], slope[b] = one, one - one


@device_function
def cubic_taps(x, step, axes, size, width, padding, align, half, room, index, weight, slope, count):
    """Four pixels, each padded by itself, and the cubic kernel with parameter -3/4 (Keys, 1981). room: two blocks."""
    one = half + half
    two, three, a = one + one, one + one + one, -(one + half) * half
    way = -one
    for k in range(4):
        own, unused = shift(index, k * BLOCK_POINTS), shift(room, BLOCK_POINTS)
        for b in range(count):
            room[b] = np.floor(x[b]) + way
        way += one
        pad_places(room, unused, axes, width, padding, align, half, count)
        for b in range(count):
            i = int(np.floor((room[b] if abs(room[b]) < FAR_PIXELS else -(one + one)) + half))
            own[b] = i if (i >= 0) & (i < size) else -1
    for b in range(count):
        t, s = x[b] - np.floor(x[b]), step[b]
        u, v, w = t + one, one - t, two - t
        weight[b] = ((a * u - (two + three) * a) * u + (two * two * two) * a) * u - two * two * a
        weight[BLOCK_POINTS + b] = ((a + two) * t - (a + three)) * t * t + one
        weight[2 * BLOCK_POINTS + b] = ((a + two) * v - (a + three)) * v * v + one
        weight[3 * BLOCK_POINTS + b] = ((a * w - (two + three) * a) * w + (two * two * two) * a) * w - two * two * a
        slope[b] = ((three * a * u - two * (two + three) * a) * u + two * two * two * a) * s
        slope[BLOCK_POINTS + b] = (three * (a + two) * t - two * (a + three)) * t * s
        slope[2 * BLOCK_POINTS + b] = (two * (a + three) - three * (a + two) * v) * v * s
        slope[3 * BLOCK_POINTS + b] = -((three * a * w - two * (two + three) * a) * w + two * two * two * a) * s


@device_function
def axis_taps(place, axes, size, width, how, half, room, index, weight, slope, count):
    """The taps of one axis: pixel (-1: none), weight and its derivative, written BLOCK_POINTS apart. room: four blocks."""
    taps, padding, align = how
    one = half + half
    scale = (width - one) * half if align else width * half
    x, step, spare = room, shift(room, BLOCK_POINTS), shift(room, 2 * BLOCK_POINTS)
    padded = (padding == BORDER) | (padding == REFLECTION) | (taps == 4)
    for b in range(count):
        at = (place[b * axes] + one) * scale - (half - half if align else half)
        near = abs(at) < FAR_PIXELS
        x[b], step[b] = at if near | padded else -(one + one) * (one + one), scale if near else half - half
        spare[b] = at * (half - half)  # 0, or NaN where there is no place; at - at is 0 to the compiler
    if taps == 4:
        cubic_taps(x, step, axes, size, width, padding, align, half, spare, index, weight, slope, count)
        return
    pad_places(x, step, axes, width, padding, align, half, count)
    if taps == 1:
        nearest_taps(x, size, half, index, weight, slope, count)
    else:
        linear_taps(x, step, size, half, index, weight, slope, count)
    if (taps == 2) & (padding == ZEROS) & (axes == 2):
        for b in range(count):
            weight[b] += spare[b]
            weight[BLOCK_POINTS + b] += spare[b]


@device_function
def block_taps(n, p0, count, grid, image, how, half, ints, floats):
    """The tables of ``count`` places of image n from p0.

    ints: the pixels of 3 axes x 4 taps, then those of all products. floats: weights of axes, slopes of axes, products.
    """
    places, axes = grid.shape[1:]
    for a in range(3):
        index, weight = shift(ints, a * 4 * BLOCK_POINTS), shift(floats, a * 4 * BLOCK_POINTS)
        slope = shift(floats, (12 + a * 4) * BLOCK_POINTS)
        if a < axes:
            size, place = image[2 - a], pointer(grid, (n * places + p0) * axes + a)
            room = shift(floats, WEIGHT_OFFSET)
            axis_taps(place, axes, size, grid.dtype.type(size), how, half, room, index, weight, slope, count)
        else:
            for b in range(count):
                index[b], weight[b], slope[b] = 0, half + half, half - half
    taps, marked = how[0], how[1] == ZEROS
    for t in range(taps**axes):
        i, j, k = t % taps, t // taps % taps, t // taps // taps
        w, h, d = (
            shift(ints, i * BLOCK_POINTS),
            shift(ints, (4 + j) * BLOCK_POINTS),
            shift(ints, (8 + k) * BLOCK_POINTS),
        )
        u, v, z = (
            shift(floats, i * BLOCK_POINTS),
            shift(floats, (4 + j) * BLOCK_POINTS),
            shift(floats, (8 + k) * BLOCK_POINTS),
        )
        own, product = shift(ints, INDEX_OFFSET + t * BLOCK_POINTS), shift(floats, WEIGHT_OFFSET + t * BLOCK_POINTS)
        for b in range(count):
            there = (w[b] >= 0) & (h[b] >= 0) & (d[b] >= 0)
            total = u[b] * v[b] * z[b]
            nowhere = 0 if marked & (total != total) else -1
            own[b] = (d[b] * image[1] + h[b]) * image[2] + w[b] if there else nowhere
            product[b] = total
