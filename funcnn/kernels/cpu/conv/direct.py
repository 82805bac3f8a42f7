"""Direct convolution of many small images: channels along the vector, so that narrow images waste no columns of a tile.

``gather``'s product takes 48 pixels of the image's grid at a time, of which a row of ten outputs in a pitch of 14 fills two
thirds. Here ``tile_runs`` takes two rows of exactly as many pixels as there are, and the channels fill whole vectors
or halves. The outputs come as (pixels, channels) and are transposed when they are written; the bias is where the sums begin.

The weight gradient is the same tile with other operands: the cotangent, transposed to (pixels, channels), in place of the
weights, and the image's rows at the taps (c, i) in place of rows of pixels, whose neighbours are the taps (c, i, j).

Sums run over at most RUN_PRODUCTS taps, whose sums are added up: 3e-7 to 4e-7 of the largest output is the largest error in float32.

A chunk is one group of one image, copied by its worker where there is padding or a stride. One call does everything.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.direct_tile import tile_runs
from funcnn.kernels.cpu.conv.gather import SLACK_ELEMENTS, copy_planes
from funcnn.kernels.cpu.conv.packing import pack_lanes
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.tiles import RUN_PRODUCTS
from funcnn.kernels.cpu.vector.transpose import transpose


# ---- outputs, and gradients of inputs -----------------------------------------------------------------------------------
@device_function
def pack_direct(chunk, worker, w, bias, table, packed, spoiled, lanes, width, stride, group):
    """Works on panel (g, tile): ``width`` elements of the bias, then of the weights for each tap, as ``pack_panel`` takes them."""
    tiles = (lanes + width - 1) // width
    g, tile = chunk // tiles, chunk % tiles
    valid = min(width, lanes - tile * width)
    target = pointer(packed, chunk * (table.size + 1) * width)
    clear_row(target, width)
    for lane in range(valid):
        target[lane] = bias[g * lanes + tile * width + lane]
    at, rest = group * g + stride * tile * width, shift(target, width)
    spoiled[chunk] = pack_lanes(w, at, pointer(table, 0), table.size, rest, valid, width, stride)


@kernel(
    touches={
        "w": lambda table, groups, lanes, stride, group: (
            (groups - 1) * group + (lanes - 1) * stride + int(table.max()) + 1
        ),
        "bias": lambda groups, lanes: groups * lanes,
        "packed": lambda table, groups, lanes, width: groups * -(-lanes // width) * width * (table.size + 1),
        "spoiled": lambda groups, lanes, width: groups * -(-lanes // width),
    }
)
def pack_direct_weights(w, bias, table, packed, spoiled, groups, lanes, width, stride, group, threads):
    """Packs panels of ``width`` output channels of bias and weights; the arguments are those of ``pack_weights``."""
    panels = groups * ((lanes + width - 1) // width)
    parallel_for(pack_direct, panels, threads, (w, bias, table, packed, spoiled, lanes, width, stride, group))


@device_function
def direct_rows(image, panel, offsets, spans, c, rows, grid, width, half, longest):
    """c (pixels, width): the first ``rows`` rows of outputs from the image that begins at their first pixel.

    Two rows go side by side, cut into equal runs of at most ``longest``; of a last single row, two halves of a run. ``spans``
    has the first tap, and how many, for each two rows: those of which some number is not padding.
    """
    _, _, Q, pitch = grid
    for p in range(0, rows, 2):
        pair = p + 1 < rows
        reach = longest if pair else 2 * longest
        pieces = (Q + reach - 1) // reach
        tap, count = spans[p], spans[p + 1]
        weights, places = shift(panel, (1 + tap) * width), pointer(offsets, tap)
        for i in range(pieces):
            q = Q * i // pieces
            together = Q * (i + 1) // pieces - q
            length = together if pair else (together + 1) // 2
            apart, beside = (pitch, Q) if pair else (together - length, together - length)
            target = shift(c, (p * Q + q) * width)
            source = shift(image, p * pitch + q)
            runs = (count + RUN_PRODUCTS - 1) // RUN_PRODUCTS
            for run in range(runs):
                r = count * run // runs
                many, a, some = count * (run + 1) // runs - r, shift(weights, r * width), shift(places, r)
                tile_runs(many, panel, a, half, source, some, apart, target, beside * width, length, run > 0)


@device_function
def direct_image(chunk, worker, x, images, packed, offsets, spans, y, scratch, layout, copied, grid, step, sizes, half):
    """Works on one group of one image."""
    inner, lanes, width, block, longest, groups = sizes
    room = inner * layout[2][0] * layout[4] + (SLACK_ELEMENTS if copied else 0)
    base = (worker if copied else chunk) * room
    if copied:
        copy_planes(x, chunk * inner, images, base, inner, layout)
    planes, P, Q, pitch = grid
    c = pointer(scratch, worker * block * Q * width)
    panels = (lanes + width - 1) // width
    for plane in range(planes):
        for first in range(0, P, block):
            rows = min(block, P - first)
            source = pointer(images, base + plane * step + first * pitch)
            for k in range(panels):
                panel = pointer(packed, (chunk % groups * panels + k) * (offsets.size + 1) * width)
                direct_rows(source, panel, offsets, pointer(spans, first), c, rows, grid, width, half, longest)
                target = pointer(y, (((chunk * lanes + k * width) * planes + plane) * P + first) * Q)
                transpose(c, width, target, planes * P * Q, rows * Q, min(width, lanes - k * width))


@kernel(
    reads=("images",),  # x itself
    touches={
        "x": lambda y, layout, grid, sizes: (
            y.size // (sizes[1] * grid[0] * grid[1] * grid[2]) * sizes[0] * layout[0][0] * layout[0][1] * layout[0][2]
        ),
        "images": lambda layout, copied, sizes, threads: (
            threads * (sizes[0] * layout[2][0] * layout[4] + SLACK_ELEMENTS) if copied else 0
        ),
        "packed": lambda offsets, sizes: sizes[5] * -(-sizes[1] // sizes[2]) * sizes[2] * (offsets.size + 1),
        "spans": lambda grid: (grid[1] + 1) // 2 * 2,
        "scratch": lambda grid, sizes, threads: threads * sizes[3] * grid[2] * sizes[2],
    },
)
def convolve_direct(x, images, packed, offsets, spans, y, scratch, layout, copied, grid, step, sizes, half, threads):
    """Writes y = bias + w * x for images in chunks, from packed bias and weights.

    images: room for one group of one image for each thread, or x itself (``copied`` false). grid: planes, rows, columns
    of an output, and the image's pitch. step: from a plane of the image to the next. sizes: input and output channels
    of a group, elements of a vector, rows of outputs at a time (even, or all), pixels of a run, groups. spans: see
    ``direct_rows``.
    """
    chunks = y.size // (sizes[1] * grid[0] * grid[1] * grid[2])
    args = (x, images, packed, offsets, spans, y, scratch, layout, copied, grid, step, sizes, half)
    parallel_for(direct_image, chunks, threads, args)
