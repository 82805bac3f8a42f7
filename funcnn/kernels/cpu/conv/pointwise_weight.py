"""The weight gradient of a convolution with kernels of one tap: dw (K x C) = the sum over images of dy (K x pixels) x'.

A chunk owns a block of dw and some pieces of images. It transposes a piece of x, to (pixels x C), into the second-level cache,
and then every eight rows of dy are eight streams that are read where they lie, once: a tile of dw is a product whose sum runs
along the pixels. It stays in registers for a thousand of them or less and is added to sums in float64; those of the chunks
are added up in order. Turning costs least for the array of fewer channels, so x and dy may change places.

2 N K C P flops on 4 N (K + C) P bytes. The prefetcher follows the streams, so the multiply-add binds: 88 % of its rate.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.tiles import RUN_PRODUCTS, tile_strided
from funcnn.kernels.cpu.vector.transpose import transpose


@device_function
def add_numbers(sums, c, count):
    """Writes sums += c."""
    for i in range(count):
        sums[i] += c[i]


@device_function
def sum_pieces(chunk, worker, x, dy, scratch, sums, tile, sizes, blocks):
    """Works on the sums of a block of dw over the pieces ``each * part`` and following: (tiles of channels, wide / columns, tile)."""
    rows, columns = tile
    channels, lanes, pixels, pieces, groups = sizes
    inner, each, deep, wide, lane_blocks, row_blocks = blocks
    g, part = chunk // row_blocks // lane_blocks % groups, chunk // row_blocks // lane_blocks // groups
    first, low = chunk % row_blocks * wide, chunk // row_blocks % lane_blocks * deep
    there, high = min(wide, channels - first), min(low + deep, (lanes + rows - 1) // rows)
    transposed, total = pointer(scratch, worker * inner * wide), pointer(sums, chunk * deep * rows * wide)
    c, image = pointer(scratch, scratch.size - (worker + 1) * rows * columns), (pixels + inner - 1) // inner
    clear_row(total, deep * rows * wide)
    for j in range(inner):
        clear_row(shift(transposed, j * wide + there), wide - there)
    for piece in range(part * each, min((part + 1) * each, pieces)):
        n, p = piece // image, piece % image * inner
        many, source = min(inner, pixels - p), pointer(x, ((n * groups + g) * channels + first) * pixels + p)
        transpose(source, pixels, transposed, wide, there, many)
        for k in range(low, high):
            a = pointer(dy, ((n * groups + g) * lanes + min(k * rows, lanes - rows)) * pixels + p)
            for t in range(0, there, columns):
                for run in range(0, many, RUN_PRODUCTS):
                    b = shift(transposed, run * wide + t)
                    tile_strided(min(RUN_PRODUCTS, many - run), shift(a, run), 1, pixels, b, wide, c, columns, run > 0)
                add_numbers(shift(total, ((k - low) * wide + t) * rows), c, rows * columns)


@device_function
def put_sums(total, dw, first, rows, columns, many, places):
    """Rows ``first`` and following and ``many`` columns of a tile to dw, along what is consecutive there."""
    down, across = places
    if across == 1:
        for i in range(first, rows):
            target, row = shift(dw, i * down), shift(total, i * columns)
            for j in range(many):
                target[j] = row[j]
    else:
        for j in range(many):
            for i in range(first, rows):
                dw[i * down + j * across] = total[i * columns + j]


@device_function
def join_sums(chunk, worker, sums, dw, tile, sizes, blocks, parts, places):
    """Adds what the parts have for eight rows of a block in order, and writes it."""
    rows, columns = tile
    channels, lanes, _, _, groups = sizes
    _, _, deep, wide, lane_blocks, row_blocks = blocks
    block = chunk // deep
    g, first = block // row_blocks // lane_blocks, block % row_blocks * wide
    row = (block // row_blocks % lane_blocks * deep + chunk % deep) * rows
    start, there = min(row, lanes - rows), min(wide, channels - first)
    if row < lanes:
        for t in range(0, there, columns):
            total = pointer(sums, chunk * rows * wide + t * rows)
            for part in range(1, parts):
                other = part * groups * lane_blocks * row_blocks * deep * rows * wide
                add_numbers(total, shift(total, other), rows * columns)
            target = pointer(dw, g * lanes * channels + start * places[0] + (first + t) * places[1])
            put_sums(total, target, row - start, rows, columns, min(columns, there - t), places)


@kernel(
    touches={
        "x": lambda sizes, blocks: sizes[3] // -(-sizes[2] // blocks[0]) * sizes[4] * sizes[0] * sizes[2],
        "dy": lambda sizes, blocks: sizes[3] // -(-sizes[2] // blocks[0]) * sizes[4] * sizes[1] * sizes[2],
        "dw": lambda sizes: sizes[4] * sizes[0] * sizes[1],
        "scratch": lambda tile, blocks, threads: threads * (blocks[0] * blocks[3] + tile[0] * tile[1]),
        "sums": lambda tile, sizes, blocks: (
            -(-sizes[3] // blocks[1]) * sizes[4] * blocks[4] * blocks[5] * blocks[2] * tile[0] * blocks[3]
        ),
    }
)
def pointwise_weight_grad(x, dy, dw, scratch, sums, tile, sizes, blocks, strides, threads):
    """dw from x (N, groups * channels, pixels) and dy (N, groups * lanes, pixels).

    tile: that of ``tile_strided``; a group has at least as many lanes. sizes: channels and lanes of a group, pixels of an
    image, pieces of all images, groups. blocks: pixels of a piece, pieces of a chunk; a block's tiles of lanes, and channels
    in whole tiles; blocks of lanes, of channels. strides: of dw from lane and channel to the next. scratch: a piece of a
    block's channels and a tile for each thread. sums: a block for each chunk, float64.
    """
    parts = (sizes[3] + blocks[1] - 1) // blocks[1]
    chunks = blocks[4] * blocks[5] * sizes[4]
    parallel_for(sum_pieces, parts * chunks, threads, (x, dy, scratch, sums, tile, sizes, blocks))
    parallel_for(join_sums, chunks * blocks[2], threads, (sums, dw, tile, sizes, blocks, parts, strides))
