"""Sampling images at given places: values, and the gradients of the images and of the places.

``grid_taps`` tells for a block of places which pixels are read and with which weights; what is done with them is the same
for every channel. So with enough channels (``transposed``) the images are first transposed to (pixels, channels): then a tap is
a run of channels, which vectorises without gathering, and an absent one costs nothing. The image's gradient scatters into
such an image of GROUP_CHANNELS channels, which stays in the second-level cache, and is transposed once at its end.

Chunks are blocks of places, for the image's gradient channels of one image: no element has two writers, and sums run in the
order of places. Cost: 2 * taps flops for each place and channel; images are passed once, twice when transposed.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.sampling.grid_rows import gather_taps, scatter_taps
from funcnn.kernels.cpu.sampling.grid_taps import (
    BLOCK_POINTS,
    INDEX_OFFSET,
    ROOM_FLOATS,
    ROOM_INTS,
    WEIGHT_OFFSET,
    block_taps,
)
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.transpose import transpose

GROUP_CHANNELS = 16  # that the image's gradient takes at a time
TRANSPOSED_POINTS = 32  # places whose channels are transposed at a time


# ---- transposing ------------------------------------------------------------------------------------------------------
@device_function
def transpose_chunk(chunk, worker, x, y):
    """Works on a run of pixels of one image."""
    channels, pixels = x.shape[1:]
    blocks = -(-pixels // BLOCK_POINTS)
    n, first = chunk // blocks, chunk % blocks * BLOCK_POINTS
    source, target = pointer(x, n * channels * pixels + first), pointer(y, (n * pixels + first) * channels)
    transpose(source, pixels, target, channels, channels, min(BLOCK_POINTS, pixels - first))


@kernel(touches={"y": lambda x: x.size})
def transpose_images(x, y, threads):
    """Transposes the images x (N, C, pixels) to y (N, pixels, C)."""
    parallel_for(transpose_chunk, x.shape[0] * -(-x.shape[2] // BLOCK_POINTS), threads, (x, y))


# ---- values -----------------------------------------------------------------------------------------------------------
@device_function
def sample_chunk(chunk, worker, x, transposed, grid, y, image, how, half, ints, floats, each):
    """Works on one block of places, every channel."""
    places, axes = grid.shape[1:]
    half = pointer(half, 0)[0]
    channels, pixels, zero = y.shape[1], image[0] * image[1] * image[2], half - half
    blocks, taps = -(-places // BLOCK_POINTS), how[0] ** axes
    n, p0 = chunk // blocks, chunk % blocks * BLOCK_POINTS
    count = min(BLOCK_POINTS, places - p0)
    whole, parts = pointer(ints, worker * ROOM_INTS), pointer(floats, worker * each)
    block_taps(n, p0, count, grid, image, how, half, whole, parts)
    index, weight, room = (
        shift(whole, INDEX_OFFSET),
        shift(parts, WEIGHT_OFFSET),
        shift(parts, WEIGHT_OFFSET + 16 * BLOCK_POINTS),
    )
    source = pointer(x, n * channels * pixels)
    if transposed:
        for first in range(0, count, TRANSPOSED_POINTS):
            rows = min(TRANSPOSED_POINTS, count - first)
            for b in range(rows):
                at, by = shift(index, first + b), shift(weight, first + b)
                gather_taps(shift(room, b * channels), source, channels, at, by, BLOCK_POINTS, taps)
            transpose(room, channels, pointer(y, n * channels * places + p0 + first), places, rows, channels)
        return
    for c in range(channels):
        own, out = shift(source, c * pixels), pointer(y, (n * channels + c) * places + p0)
        for b in range(count):
            out[b] = weight[b] * own[index[b]] if index[b] >= 0 else zero
        for t in range(1, taps):
            i, u = shift(index, t * BLOCK_POINTS), shift(weight, t * BLOCK_POINTS)
            for b in range(count):
                out[b] += u[b] * own[i[b]] if i[b] >= 0 else zero


@kernel(
    touches={
        "x": lambda grid, y, image: len(grid) * y.shape[1] * image[0] * image[1] * image[2],
        "y": lambda grid, y: len(grid) * y.shape[1] * grid.shape[1],
        "ints": lambda threads: threads * ROOM_INTS,
        "floats": lambda transposed, y, each, threads: (
            threads * max(each, ROOM_FLOATS + (TRANSPOSED_POINTS * y.shape[1] if transposed else 0))
        ),
    }
)
def sample(x, transposed, grid, y, image, how, half, ints, floats, each, threads):
    """Writes y (N, C, P) = the images x (N, C, pixels), or (N, pixels, C) when ``transposed``, at grid (N, P, axes).

    image: (D, H, W). how: (taps of an axis: 1 nearest, 2 linear, 4 cubic; padding; align_corners). half: 0.5.
    ints, floats: for each worker ROOM_INTS elements, and ``each``: ROOM_FLOATS + TRANSPOSED_POINTS * C.
    """
    chunks = grid.shape[0] * -(-grid.shape[1] // BLOCK_POINTS)
    parallel_for(sample_chunk, chunks, threads, (x, transposed, grid, y, image, how, half, ints, floats, each))


# ---- the gradient of the images ---------------------------------------------------------------------------------------
@device_function
def image_grad_chunk(chunk, worker, dy, grid, dx, image, how, half, ints, floats, each):
    """GROUP channels of one image, all places."""
    places, axes = grid.shape[1:]
    half = pointer(half, 0)[0]
    channels, pixels, zero, taps = dx.shape[1], image[0] * image[1] * image[2], half - half, how[0] ** axes
    groups = -(-channels // GROUP_CHANNELS)
    n, c0 = chunk // groups, chunk % groups * GROUP_CHANNELS
    group = min(GROUP_CHANNELS, channels - c0)
    whole, parts = pointer(ints, worker * ROOM_INTS), pointer(floats, worker * each)
    index, weight, rows = (
        shift(whole, INDEX_OFFSET),
        shift(parts, WEIGHT_OFFSET),
        shift(parts, WEIGHT_OFFSET + 16 * BLOCK_POINTS),
    )
    total = shift(rows, BLOCK_POINTS * GROUP_CHANNELS)
    for i in range(group * pixels):
        total[i] = zero
    for p0 in range(0, places, BLOCK_POINTS):
        count = min(BLOCK_POINTS, places - p0)
        block_taps(n, p0, count, grid, image, how, half, whole, parts)
        transpose(pointer(dy, (n * channels + c0) * places + p0), places, rows, group, group, count)
        for b in range(count):
            g = shift(rows, b * group)
            scatter_taps(total, g, group, shift(index, b), shift(weight, b), BLOCK_POINTS, taps)
    transpose(total, group, pointer(dx, (n * channels + c0) * pixels), pixels, pixels, group)


@kernel(
    touches={
        "dy": lambda grid, dx: len(grid) * dx.shape[1] * grid.shape[1],
        "dx": lambda grid, dx, image: len(grid) * dx.shape[1] * image[0] * image[1] * image[2],
        "ints": lambda threads: threads * ROOM_INTS,
        "floats": lambda image, each, threads: (
            threads * max(each, ROOM_FLOATS + GROUP_CHANNELS * (BLOCK_POINTS + image[0] * image[1] * image[2]))
        ),
    }
)
def image_grad(dy, grid, dx, image, how, half, ints, floats, each, threads):
    """Writes dx (N, C, pixels) = the gradient of ``sample``; each: ROOM_FLOATS + GROUP_CHANNELS * (BLOCK_POINTS + pixels)."""
    chunks = grid.shape[0] * -(-dx.shape[1] // GROUP_CHANNELS)
    parallel_for(image_grad_chunk, chunks, threads, (dy, grid, dx, image, how, half, ints, floats, each))


# ---- the gradient of the places ---------------------------------------------------------------------------------------
@device_function
def tap_sums(dy, x, transposed, channels, places, pixels, index, taps, rows, sums, count, zero):
    """Writes sums[t, b] = the sum over channels of dy * x at tap t of place b. rows: room for TRANSPOSED_POINTS * channels."""
    if transposed:
        for first in range(0, count, TRANSPOSED_POINTS):
            many = min(TRANSPOSED_POINTS, count - first)
            transpose(shift(dy, first), places, rows, channels, channels, many)
            for b in range(many):
                g = shift(rows, b * channels)
                for t in range(taps):
                    i, total = index[t * BLOCK_POINTS + first + b], zero
                    if i >= 0:
                        pixel = shift(x, i * channels)
                        for c in range(channels):
                            total += g[c] * pixel[c]
                    sums[t * BLOCK_POINTS + first + b] = total
        return
    for t in range(taps):
        total, i = shift(sums, t * BLOCK_POINTS), shift(index, t * BLOCK_POINTS)
        for b in range(count):
            total[b] = zero
        for c in range(channels):
            own, g = shift(x, c * pixels), shift(dy, c * places)
            for b in range(count):
                total[b] += g[b] * own[i[b]] if i[b] >= 0 else zero


@device_function
def grid_grad_chunk(chunk, worker, dy, x, transposed, grid, dgrid, image, how, half, ints, floats, each):
    """Works on one block of places: the sums of its taps, times the taps' slopes along each axis."""
    places, axes = grid.shape[1:]
    half = pointer(half, 0)[0]
    channels, pixels, zero = dy.shape[1], image[0] * image[1] * image[2], half - half
    blocks, taps = -(-places // BLOCK_POINTS), how[0]
    n, p0 = chunk // blocks, chunk % blocks * BLOCK_POINTS
    count = min(BLOCK_POINTS, places - p0)
    whole, parts = pointer(ints, worker * ROOM_INTS), pointer(floats, worker * each)
    block_taps(n, p0, count, grid, image, how, half, whole, parts)
    index, sums, rows = (
        shift(whole, INDEX_OFFSET),
        shift(parts, WEIGHT_OFFSET),
        shift(parts, WEIGHT_OFFSET + 16 * BLOCK_POINTS),
    )
    g, source = pointer(dy, n * channels * places + p0), pointer(x, n * channels * pixels)
    tap_sums(g, source, transposed, channels, places, pixels, index, taps**axes, rows, sums, count, zero)
    for a in range(axes):
        out = pointer(dgrid, (n * places + p0) * axes + a)
        for b in range(count):
            out[b * axes] = zero
        for t in range(taps**axes):
            i, j, k = t % taps, 4 + t // taps % taps, 8 + t // taps // taps
            u = shift(parts, (i + 12 if a == 0 else i) * BLOCK_POINTS)
            v = shift(parts, (j + 12 if a == 1 else j) * BLOCK_POINTS)
            z = shift(parts, (k + 12 if a == 2 else k) * BLOCK_POINTS)
            own = shift(sums, t * BLOCK_POINTS)
            for b in range(count):
                out[b * axes] += u[b] * v[b] * z[b] * own[b]


@kernel(
    touches={
        "dy": lambda dy, grid: len(grid) * dy.shape[1] * grid.shape[1],
        "x": lambda dy, grid, image: len(grid) * dy.shape[1] * image[0] * image[1] * image[2],
        "dgrid": lambda grid: grid.size,
        "ints": lambda threads: threads * ROOM_INTS,
        "floats": lambda dy, transposed, each, threads: (
            threads * max(each, ROOM_FLOATS + (TRANSPOSED_POINTS * dy.shape[1] if transposed else 0))
        ),
    }
)
def grid_grad(dy, x, transposed, grid, dgrid, image, how, half, ints, floats, each, threads):
    """Writes dgrid (N, P, axes) = the gradient of ``sample``; floats as there."""
    chunks = grid.shape[0] * -(-grid.shape[1] // BLOCK_POINTS)
    parallel_for(
        grid_grad_chunk, chunks, threads, (dy, x, transposed, grid, dgrid, image, how, half, ints, floats, each)
    )
