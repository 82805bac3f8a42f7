"""The weight gradient of a direct convolution (``direct``): dw[k, c, i, j] = sum over pixels of dy[k] * x at the tap.

The tile is ``tile_runs`` with other operands. The cotangent, transposed to (pixels, channels), stands for the weights; the row of
an image that the tap (c, i, 0) meets first stands for a run of pixels, whose neighbours are the taps (c, i, j). So
a tile holds two rows of taps, and the sum runs over the outputs' pixels, none of them padding or a gap in a grid. In
an image split by phase the taps j, j + stride and so on are the neighbours.

A chunk has some images. Pieces of their pixels, short enough for the first-level cache, are summed in the data's type, the
pieces in float64; the chunks' sums are joined in their order. The largest error in float32 is 3e-7 of the largest gradient.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.direct_tile import tile_runs
from funcnn.kernels.cpu.conv.gather import SLACK_ELEMENTS, copy_planes
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.transpose import transpose


@device_function
def transpose_channels(dy, apart, transposed, valid, width, pixels):
    """transposed (1 + pixels, width): zeros, then ``valid`` channels of dy, ``apart`` from one to the next; zeros beyond them."""
    clear_row(transposed, width)
    target = shift(transposed, width)
    if valid < width:
        clear_row(target, pixels * width)
    transpose(dy, apart, target, width, valid, pixels)


@device_function
def add_runs(image, transposed, rows, places, first, count, sums, c, width, taps, half):
    """``sums`` (rows * taps, width) += the products of ``count`` pixels with one panel of channels; c holds a tile."""
    cotangent = shift(transposed, width)
    for r in range(0, rows.size, 2):
        other = min(r + 1, rows.size - 1)
        source = shift(image, rows[r])
        apart = rows[other] - rows[r]
        tile_runs(
            count, transposed, cotangent, half, source, pointer(places, first), apart, c, taps * width, taps, False
        )
        total = shift(sums, r * taps * width)
        for i in range((other - r + 1) * taps * width):
            total[i] += c[i]


@device_function
def direct_weight_chunk(chunk, worker, x, dy, images, rows, places, sums, scratch, layout, copied, sizes, half):
    """Works on the sums of images ``chunk * each`` and following: (groups, panels, rows * taps, width)."""
    batch, each, groups, inner, lanes, width, taps, piece = sizes
    panels, pixels = (lanes + width - 1) // width, places.size
    room = inner * layout[2][0] * layout[4]
    transposed = pointer(scratch, worker * (piece + 1 + 2 * taps) * width)
    c = shift(transposed, (piece + 1) * width)
    size = rows.size * taps * width
    clear_row(pointer(sums, chunk * groups * panels * size), groups * panels * size)
    for n in range(chunk * each, min((chunk + 1) * each, batch)):
        for g in range(groups):
            first = n * groups + g
            base = worker * (room + SLACK_ELEMENTS) if copied else first * room
            if copied:
                copy_planes(x, first * inner, images, base, inner, layout)
            for k in range(panels):
                total = pointer(sums, ((chunk * groups + g) * panels + k) * size)
                for at in range(0, pixels, piece):
                    count = min(piece, pixels - at)
                    source = pointer(dy, (first * lanes + k * width) * pixels + at)
                    transpose_channels(source, pixels, transposed, min(width, lanes - k * width), width, count)
                    add_runs(pointer(images, base), transposed, rows, places, at, count, total, c, width, taps, half)


@device_function
def join_direct(chunk, worker, sums, dw, taps, chunks, groups, lanes, width):
    """Works on a row of sums of all panels of one group: the chunks' added in order, and written to dw where ``taps`` says."""
    panels, count = (lanes + width - 1) // width, taps.size
    g, r = chunk // count, chunk % count
    if taps[r] < 0:
        return
    for k in range(panels):
        total = pointer(sums, ((g * panels + k) * count + r) * width)
        for other in range(1, chunks):
            more = shift(total, other * groups * panels * count * width)
            for i in range(width):
                total[i] += more[i]
        target = pointer(dw, (g * lanes + k * width) * (dw.size // (groups * lanes)) + taps[r])
        for i in range(min(width, lanes - k * width)):
            target[i * (dw.size // (groups * lanes))] = total[i]


@kernel(
    reads=("images",),  # x itself
    touches={
        "x": lambda layout, sizes: sizes[0] * sizes[2] * sizes[3] * layout[0][0] * layout[0][1] * layout[0][2],
        "dy": lambda places, sizes: sizes[0] * sizes[2] * sizes[4] * places.size,
        "images": lambda layout, copied, sizes, threads: (
            threads * (sizes[3] * layout[2][0] * layout[4] + SLACK_ELEMENTS) if copied else 0
        ),
        "taps": lambda rows, sizes: rows.size * sizes[6],
        "sums": lambda taps, sizes: (
            -(-sizes[0] // sizes[1]) * sizes[2] * -(-sizes[4] // sizes[5]) * sizes[5] * taps.size
        ),
        "scratch": lambda sizes, threads: threads * (sizes[7] + 1 + 2 * sizes[6]) * sizes[5],
    },
)
def direct_weight_grad(x, dy, images, rows, places, taps, dw, sums, scratch, layout, copied, sizes, half, threads):
    """dw (groups * lanes, taps of all channels) from x and dy (n, groups * lanes, pixels).

    rows, places: where the rows of taps, and the outputs' pixels, begin in an image. taps: which of dw each tap of the rows
    is, or -1. sums: float64, room for every chunk. sizes: images, images of a chunk, groups, input and output channels of a
    group, elements of a vector, taps of a row, pixels of a piece. images, layout, copied: see ``convolve_direct``.
    """
    batch, each, groups, _, lanes, width, _, _ = sizes
    chunks = (batch + each - 1) // each
    args = (x, dy, images, rows, places, sums, scratch, layout, copied, sizes, half)
    parallel_for(direct_weight_chunk, chunks, threads, args)
    parallel_for(join_direct, groups * taps.size, threads, (sums, dw, taps, chunks, groups, lanes, width))
