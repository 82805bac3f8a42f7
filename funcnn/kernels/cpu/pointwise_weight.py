"""The weight gradient of a convolution with kernels of one tap: dw (K x C) = the sum over images of dy (K x pixels) x'.

A chunk owns a block of dw and some pieces of images. It turns a piece of x round, (pixels x C), into the second-level cache,
and then every eight rows of dy are eight streams that are read where they lie, once: a tile of dw is a product whose sum runs
along the pixels. It stays in registers for a thousand of them or less and is added to sums in float64; those of the chunks
are added up in order. Turning costs least for the array of fewer channels, so x and dy may change places.

2 N K C P flops on 4 N (K + C) P bytes. The prefetcher follows the streams, so the multiply-add binds: 88 % of its rate.
"""

from __future__ import annotations

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.pointwise import find_pieces, pack_pixels
from funcnn.kernels.cpu.rows import clear_row
from funcnn.kernels.cpu.tiles import tile_strided
from funcnn.kernels.cpu.turn import turn
from funcnn.kernels.cpu.vector import pointer, shift


@device_function
def turn_pixels(x, x_rows, turned, places, start, many, channels, inner, wide, run, strides):
    """turned[j, c] = channel c of pixel start + j of the batch; behind it there is room for as many numbers."""
    source, step = x, strides[1]
    if x_rows.size == 1 and strides[2] == 1:
        source = shift(x, start // run * strides[0] + start % run)
    else:
        source, step = shift(turned, inner * wide), inner
        found = find_pieces(start, many, run, x_rows, x_rows, strides, strides, places)
        pack_pixels(x, places, found, source, channels, inner, strides[1], strides[2])
    turn(source, step, turned, wide, channels, many)


@device_function
def add_numbers(sums, c, count):
    """sums += c."""
    for i in range(count):
        sums[i] += c[i]


@device_function
def sum_pieces(chunk, worker, x, x_rows, dy, scratch, places, sums, tile, sizes, run, blocks, strides):
    """The sums of a block of dw over the pieces ``each * part`` and following: (tiles of channels, wide / columns, tile)."""
    rows, columns = tile
    channels, lanes, pixels, pieces = sizes
    inner, each, deep, wide, lane_blocks, row_blocks, groups = blocks
    g, part = chunk // row_blocks // lane_blocks % groups, chunk // row_blocks // lane_blocks // groups
    first, low = chunk % row_blocks * wide, chunk // row_blocks % lane_blocks * deep
    there, high = min(wide, channels - first), min(low + deep, (lanes + rows - 1) // rows)
    turned, total = pointer(scratch, worker * 2 * inner * wide), pointer(sums, chunk * deep * rows * wide)
    c, image = pointer(scratch, scratch.size - (worker + 1) * rows * columns), (pixels + inner - 1) // inner
    clear_row(total, deep * rows * wide)
    for j in range(inner):
        clear_row(shift(turned, j * wide + there), wide - there)
    for piece in range(part * each, min((part + 1) * each, pieces)):
        n, p = piece // image, piece % image * inner
        many, source = min(inner, pixels - p), pointer(x, (g * channels + first) * strides[1])
        turn_pixels(
            source,
            x_rows,
            turned,
            pointer(places, worker * 3 * inner),
            n * pixels + p,
            many,
            there,
            inner,
            wide,
            run,
            strides,
        )
        for k in range(low, high):
            a = pointer(dy, ((n * groups + g) * lanes + min(k * rows, lanes - rows)) * pixels + p)
            for t in range(0, there, columns):
                tile_strided(many, a, 1, pixels, shift(turned, t), wide, c, columns, False)
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
    """Add what the parts have for eight rows of a block in order, and write it."""
    rows, columns = tile
    channels, lanes = sizes[:2]
    _, _, deep, wide, lane_blocks, row_blocks, groups = blocks
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


@kernel
def pointwise_weight_grad(
    x, x_rows, dy, dw, scratch, places, sums, tile, sizes, run, blocks, strides, dw_strides, threads
):
    """dw from x, whose rows of ``run`` pixels begin at ``x_rows``, and dy (N, groups * lanes, pixels).

    tile: that of ``tile_strided``; a group has at least as many lanes. sizes: channels and lanes of a group, pixels of an
    image, pieces of all images. blocks: pixels of a piece, pieces of a chunk; a block's tiles of lanes, and channels in whole
    tiles; blocks of lanes, of channels; groups. strides: of x from image, channel and pixel to the next; dw_strides: of dw
    from lane and channel. scratch: two pieces of a block's channels and a tile for each thread; places: three numbers a
    pixel of a piece. sums: a block for each chunk, float64.
    """
    parts = (sizes[3] + blocks[1] - 1) // blocks[1]
    chunks = blocks[4] * blocks[5] * blocks[6]
    args = (x, x_rows, dy, scratch, places, sums, tile, sizes, run, blocks, strides)
    parallel_for(sum_pieces, parts * chunks, threads, args)
    parallel_for(join_sums, chunks * blocks[2], threads, (sums, dw, tile, sizes, blocks, parts, dw_strides))
