"""Sampling images at given places: values, and the gradients of the images and of the places.

Images are (N, C, D, H, W), places (N, P, axes) in [-1, 1], axis 0 being W; a plane has D = 1 and two axes. For a block of
places the taps of each axis (pixel, weight, derivative of the weight; -1 is no pixel) are worked out once, then their
products, ``(index, weight)`` tap-major, and used for every channel: the rest is a gather, or in the image's gradient a
scatter, of 1, 4, 8 or 16 numbers per place and channel. Chunks of the gather are blocks of places, those of the scatter
channels of one image, so no number has two writers, and sums run in the order of places. Cost: 2 * taps flops each.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.vector import pointer, shift

ZEROS, BORDER, REFLECTION = 0, 1, 2
BLOCK = 128  # places whose taps are worked out together: their tables stay in the first-level cache
FAR = 1e9  # pixels; what is further, or NaN, counts as outside


# ---- taps of one axis -------------------------------------------------------------------------------------------------
@device_function
def inside(x, slope, width, padding, align, half):
    """A pixel coordinate moved into the image as the padding says, and the slope that is left of it."""
    one, zero = half + half, half - half
    if padding == REFLECTION:
        low = zero if align else -half
        span = width - one if align else width
        if span <= zero:
            return zero, zero
        way = abs(x - low)
        flips = np.floor(way / span)
        rest = way - flips * span
        odd = flips - np.floor(flips * half) * (one + one) > half
        slope = -slope if (x < low) != odd else slope
        x = (span - rest if odd else rest) + low
    if padding != ZEROS:
        if x <= zero:
            return zero, zero
        if x >= width - one:
            return width - one, zero
    return x, slope


@device_function
def near(x, a, one):
    """The cubic kernel for |x| <= 1, and its derivative."""
    two, three = a + one + one, a + one + one + one
    return (two * x - three) * x * x + one, ((one + one + one) * two * x - (three + three)) * x


@device_function
def far(x, a, one):
    """The cubic kernel for 1 < |x| < 2, and its derivative."""
    five, eight = (one + one + one + one + one) * a, (one + one) * (one + one) * (one + one) * a
    value = ((a * x - five) * x + eight) * x - eight * (one / (one + one))
    return value, ((one + one + one) * a * x - (five + five)) * x + eight


@device_function
def axis_taps(g, size, taps, padding, align, half, width, b, index, weight, slope):
    """The taps of one axis for place b of a block, written BLOCK apart. half and width (= size) have g's dtype."""
    one = half + half
    step = (width - one) * half if align else width * half
    x = (g + one) * step if align else (g + one) * step - half
    if not abs(x) < FAR:
        x, step = -(one + one) * (one + one), one - one
    if taps != 4:
        x, step = inside(x, step, width, padding, align, half)
    floor = np.floor(x)
    t = x - floor
    first = int(floor)
    if taps == 1:
        first += 1 if t > half or (t == half and first % 2 != 0) else 0
        index[b] = first if 0 <= first < size else -1
        weight[b], slope[b] = one, one - one
    elif taps == 2:
        index[b] = first if 0 <= first < size else -1
        index[BLOCK + b] = first + 1 if 0 <= first + 1 < size else -1
        weight[b], weight[BLOCK + b] = one - t, t
        slope[b], slope[BLOCK + b] = -step, step
    else:
        j, a = floor - one, -(one + half) * half
        for k in range(4):
            pixel = int(np.floor(inside(j, step, width, padding, align, half)[0] + half))
            index[k * BLOCK + b] = pixel if 0 <= pixel < size else -1
            j += one
        weight[b], left = far(t + one, a, one)
        weight[BLOCK + b], inner = near(t, a, one)
        weight[2 * BLOCK + b], outer = near(one - t, a, one)
        weight[3 * BLOCK + b], right = far(one + one - t, a, one)
        slope[b], slope[BLOCK + b] = left * step, inner * step
        slope[2 * BLOCK + b], slope[3 * BLOCK + b] = -outer * step, -right * step


# ---- taps of places ---------------------------------------------------------------------------------------------------
@device_function
def block_taps(n, p0, count, grid, image, how, half, ints, floats):
    """The tables of ``count`` places of image n from p0; whether no tap is absent.

    ints: 3 axes x 4 taps, then all products, BLOCK each. floats: weights of axes, their slopes, products.
    """
    taps, padding, align = how
    places, axes = grid.shape[1:]
    for a in range(3):
        size = image[2 - a]
        index, weight = shift(ints, a * 4 * BLOCK), shift(floats, a * 4 * BLOCK)
        slope = shift(floats, (12 + a * 4) * BLOCK)
        if a < axes:
            place = pointer(grid, (n * places + p0) * axes + a)
            width = grid.dtype.type(size)
            for b in range(count):
                axis_taps(place[b * axes], size, taps, padding, align, half, width, b, index, weight, slope)
        else:
            for b in range(count):
                index[b], weight[b], slope[b] = 0, half + half, half - half
    return products(count, image, taps, axes, ints, floats)


@device_function
def products(count, image, taps, axes, ints, floats):
    """Offsets and weights of the taps of all axes together; whether no tap is absent."""
    least = 0
    for t in range(taps**axes):
        i, j, k = t % taps, t // taps % taps, t // taps // taps
        w, h, d = shift(ints, i * BLOCK), shift(ints, (4 + j) * BLOCK), shift(ints, (8 + k) * BLOCK)
        u, v, z = shift(floats, i * BLOCK), shift(floats, (4 + j) * BLOCK), shift(floats, (8 + k) * BLOCK)
        index, weight = shift(ints, (12 + t) * BLOCK), shift(floats, (24 + t) * BLOCK)
        for b in range(count):
            absent = min(w[b], min(h[b], d[b])) < 0
            index[b] = -1 if absent else (d[b] * image[1] + h[b]) * image[2] + w[b]
            weight[b] = u[b] * v[b] * z[b]
            least = min(least, index[b])
    return least >= 0


# ---- values -----------------------------------------------------------------------------------------------------------
@device_function
def gather_taps(source, index, weight, taps, full, out, count, zero):
    """out[b] = the sum of a place's taps."""
    if full and taps == 4:
        i, j, k, m = index, shift(index, BLOCK), shift(index, 2 * BLOCK), shift(index, 3 * BLOCK)
        u, v, w, z = weight, shift(weight, BLOCK), shift(weight, 2 * BLOCK), shift(weight, 3 * BLOCK)
        for b in range(count):
            out[b] = (u[b] * source[i[b]] + v[b] * source[j[b]]) + (w[b] * source[k[b]] + z[b] * source[m[b]])
        return
    for b in range(count):
        out[b] = weight[b] * source[index[b]] if index[b] >= 0 else zero
    for t in range(1, taps):
        i, u = shift(index, t * BLOCK), shift(weight, t * BLOCK)
        for b in range(count):
            out[b] += u[b] * source[i[b]] if i[b] >= 0 else zero


@device_function
def sample_chunk(chunk, worker, x, grid, y, image, how, half, ints, floats):
    """One block of places, every channel."""
    places, axes = grid.shape[1:]
    channels, pixels = x.shape[1], image[0] * image[1] * image[2]
    blocks = -(-places // BLOCK)
    n, p0 = chunk // blocks, chunk % blocks * BLOCK
    count = min(BLOCK, places - p0)
    whole, parts = pointer(ints, worker * ints.shape[1]), pointer(floats, worker * floats.shape[1])
    full = block_taps(n, p0, count, grid, image, how, half, whole, parts)
    index, weight = shift(whole, 12 * BLOCK), shift(parts, 24 * BLOCK)
    for c in range(channels):
        source, out = pointer(x, (n * channels + c) * pixels), pointer(y, (n * channels + c) * places + p0)
        gather_taps(source, index, weight, how[0] ** axes, full, out, count, half - half)


@kernel
def sample(x, grid, y, image, how, half, ints, floats, threads):
    """y (N, C, P) = the images x (N, C, D * H * W) at grid (N, P, axes).

    image: (D, H, W). how: (taps of an axis: 1 nearest, 2 linear, 4 cubic; padding; align_corners). half: 0.5 in x's dtype.
    ints, floats: a row of 28 and of 40 BLOCKs for each worker.
    """
    chunks = grid.shape[0] * -(-grid.shape[1] // BLOCK)
    parallel_for(sample_chunk, chunks, threads, (x, grid, y, image, how, half, ints, floats))


# ---- gradients --------------------------------------------------------------------------------------------------------
@device_function
def scatter_taps(dy, index, weight, taps, dx, count):
    """dx[index] += weight * dy for a place's taps, place by place."""
    for b in range(count):
        g = dy[b]
        for t in range(taps):
            i = index[t * BLOCK + b]
            if i >= 0:
                dx[i] += weight[t * BLOCK + b] * g


@device_function
def image_grad_chunk(chunk, worker, dy, grid, dx, image, how, half, group, ints, floats):
    """``group`` channels of one image, all places."""
    places, axes = grid.shape[1:]
    channels, pixels = dx.shape[1], image[0] * image[1] * image[2]
    groups = -(-channels // group)
    n, c0 = chunk // groups, chunk % groups * group
    c1 = min(c0 + group, channels)
    whole, parts = pointer(ints, worker * ints.shape[1]), pointer(floats, worker * floats.shape[1])
    index, weight = shift(whole, 12 * BLOCK), shift(parts, 24 * BLOCK)
    out = pointer(dx, (n * channels + c0) * pixels)
    for i in range((c1 - c0) * pixels):
        out[i] = half - half
    for p0 in range(0, places, BLOCK):
        count = min(BLOCK, places - p0)
        block_taps(n, p0, count, grid, image, how, half, whole, parts)
        for c in range(c0, c1):
            source, out = pointer(dy, (n * channels + c) * places + p0), pointer(dx, (n * channels + c) * pixels)
            scatter_taps(source, index, weight, how[0] ** axes, out, count)


@kernel
def image_grad(dy, grid, dx, image, how, half, group, ints, floats, threads):
    """dx = the gradient of ``sample`` for the images; ``group`` channels a chunk."""
    chunks = grid.shape[0] * -(-dx.shape[1] // group)
    parallel_for(image_grad_chunk, chunks, threads, (dy, grid, dx, image, how, half, group, ints, floats))


@device_function
def grid_grad_chunk(chunk, worker, dy, x, grid, dgrid, image, how, half, ints, floats):
    """One block of places: for each tap the sum over channels of dy * x, then the taps times the slopes of their axis."""
    places, axes = grid.shape[1:]
    channels, pixels = x.shape[1], image[0] * image[1] * image[2]
    blocks = -(-places // BLOCK)
    n, p0 = chunk // blocks, chunk % blocks * BLOCK
    count, taps, zero = min(BLOCK, places - p0), how[0], half - half
    whole, parts = pointer(ints, worker * ints.shape[1]), pointer(floats, worker * floats.shape[1])
    block_taps(n, p0, count, grid, image, how, half, whole, parts)
    sums = shift(parts, 24 * BLOCK)  # in place of the products' weights
    for t in range(taps**axes):
        total, index = shift(sums, t * BLOCK), shift(whole, (12 + t) * BLOCK)
        for b in range(count):
            total[b] = zero
        for c in range(channels):
            source, g = pointer(x, (n * channels + c) * pixels), pointer(dy, (n * channels + c) * places + p0)
            for b in range(count):
                total[b] += g[b] * source[index[b]] if index[b] >= 0 else zero
    for b in range(count):
        for a in range(axes):
            total = zero
            for t in range(taps**axes):
                i, j, k = t % taps * BLOCK + b, (4 + t // taps % taps) * BLOCK + b, (8 + t // taps // taps) * BLOCK + b
                u = parts[i + 12 * BLOCK] if a == 0 else parts[i]
                v = parts[j + 12 * BLOCK] if a == 1 else parts[j]
                z = parts[k + 12 * BLOCK] if a == 2 else parts[k]
                total += u * v * z * sums[t * BLOCK + b]
            dgrid[n, p0 + b, a] = total


@kernel
def grid_grad(dy, x, grid, dgrid, image, how, half, ints, floats, threads):
    """dgrid (N, P, axes) = the gradient of ``sample`` for the places."""
    chunks = grid.shape[0] * -(-grid.shape[1] // BLOCK)
    parallel_for(grid_grad_chunk, chunks, threads, (dy, x, grid, dgrid, image, how, half, ints, floats))
