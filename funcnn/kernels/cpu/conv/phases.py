"""All phases of a transposed convolution at once: their products meet in one tile, and whole rows of outputs are written.

With a stride, each phase of the outputs is a product of its own (``gather``), whose elements lie ``stride`` apart: by
itself it reads and writes every line of the outputs, which so go through the cache once for each phase. Here a worker
makes the tiles of all phases for the same pixels and channels and weaves them into runs. The sums are those of
``gather``, element by element, and err by as much.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import apart_function, device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.gather import SLACK_ELEMENTS, copy_planes, gather_runs
from funcnn.kernels.cpu.vector.instructions import pointer, shift


@apart_function
def weave_two(target, a, b, length, add):
    """Writes target = a[0], b[0], a[1], ... plus ``add``."""
    for t in range(length):
        target[2 * t] = a[t] + add
        target[2 * t + 1] = b[t] + add


@apart_function
def weave_four(target, a, b, c, d, length, add):
    """Writes target = a[0], b[0], c[0], d[0], a[1], ... plus ``add``."""
    for t in range(length):
        target[4 * t] = a[t] + add
        target[4 * t + 1] = b[t] + add
        target[4 * t + 2] = c[t] + add
        target[4 * t + 3] = d[t] + add


@device_function
def weave(target, source, each, across, length, add):
    """Writes ``target[t * across + b] = source[b * each + t] + add``."""
    if across == 2:
        weave_two(target, source, shift(source, each), length, add)
    elif across == 4:
        weave_four(target, source, shift(source, each), shift(source, 2 * each), shift(source, 3 * each), length, add)
    else:
        for b in range(across):
            for t in range(length):
                target[t * across + b] = source[b * each + t] + add


@device_function
def store_phases(c, columns, each, y, begins, bias, channel, valid, start, grid, strides):
    """Writes the pixels that exist of the tiles of all phases, ``each`` elements apart, plus the bias."""
    _, P, Q, pitch = grid
    across = strides[4]
    p, q, j = start // pitch, start % pitch, 0
    while j < columns and p < P:
        length = min(columns - j, Q - q)
        for i in range(valid):
            for phase in range(0, begins.size, across):
                target = shift(y, begins[phase] + i * strides[1] + p * strides[3] + q * across)
                weave(target, shift(c, phase * each + i * columns + j), each, across, length, bias[channel + i])
        j += pitch - q
        p, q = p + 1, 0


@device_function
def phases_of_image(
    chunk, worker, x, images, weights, offsets, ends, begins, bias, y, scratch, tile, grid, lanes, layout, step, inner, strides
):  # fmt: skip
    """Works on one group of one image: its own copy, and all of its outputs."""
    rows, columns = tile
    g, n = chunk % strides[5], chunk // strides[5]
    panels, each, pixels = (lanes + rows - 1) // rows, rows * columns, (grid[1] - 1) * grid[3] + grid[2]
    base = worker * (inner * layout[2][0] * layout[4] + SLACK_ELEMENTS)
    copy_planes(x, chunk * inner, images, base, inner, layout)
    c = pointer(scratch, worker * begins.size * each)
    for plane in range(grid[0]):
        place = n * strides[0] + g * lanes * strides[1] + plane * strides[2]
        for t in range((pixels + columns - 1) // columns):
            start = max(min(t * columns, pixels - columns), 0)
            image = pointer(images, base + plane * step + start)
            for k in range(panels):
                for phase in range(begins.size):
                    first, count = ends[phase], ends[phase + 1] - ends[phase]
                    panel = pointer(weights, (first * panels * strides[5] + (g * panels + k) * count) * rows)
                    gather_runs(count, panel, image, pointer(offsets, first), shift(c, phase * each), rows, columns)
                target = pointer(y, place + k * rows * strides[1])
                channel, valid = g * lanes + k * rows, min(rows, lanes - k * rows)
                store_phases(c, columns, each, target, begins, bias, channel, valid, start, grid, strides)


@kernel(
    touches={
        "x": lambda layout, inner, strides, batch: (
            batch * strides[5] * inner * layout[0][0] * layout[0][1] * layout[0][2]
        ),
        "images": lambda layout, inner, threads: threads * (inner * layout[2][0] * layout[4] + SLACK_ELEMENTS),
        "weights": lambda offsets, tile, lanes, strides: strides[5] * -(-lanes // tile[0]) * tile[0] * offsets.size,
        "bias": lambda lanes, strides: strides[5] * lanes,
        "y": lambda strides, batch: batch * strides[0],
        "ends": lambda begins: begins.size + 1,
        "scratch": lambda begins, tile, threads: threads * begins.size * tile[0] * tile[1],
    }
)
def convolve_phases(
    x, images, weights, offsets, ends, begins, bias, y, scratch, tile, grid, lanes, layout, step, inner, strides, batch, threads
):  # fmt: skip
    """``convolve_images`` of all phases, which have the same grid: the last dimension's follow each other.

    offsets: those of one phase after the other, as the weights are; ``ends``: where each phase's end, from 0. begins: where its
    outputs begin in a plane of y. scratch: room for a tile of each phase for each thread. The others: see ``conv``.
    """
    args = (
        x,
        images,
        weights,
        offsets,
        ends,
        begins,
        bias,
        y,
        scratch,
        tile,
        grid,
        lanes,
        layout,
        step,
        inner,
        strides,
    )
    parallel_for(phases_of_image, batch * strides[5], threads, args)
