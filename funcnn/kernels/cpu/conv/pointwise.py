"""Convolution with kernels of one tap: for each image, y (K x pixels) = w (K x C) x (C x pixels), and for dx the same of w'.

There is nothing to lay out and no padding, so the product is of the arrays as they lie, and its columns are the pixels of all
images in a row: small images share tiles. With strides above 1 the wrapper takes the pixels out first.

2 N K C P flops on 4 N (K + C) P bytes: 64 channels to 256 on 56 x 56 pixels are 7.1 ms of multiply-adds at the full rate of two
cores and 1.4 ms of copying at that of memory, which add up unless memory is read and written while the tiles multiply:

- a block of pixels (all channels of some tiles, 100 KB) is multiplied with all weights in panels while it is in the
  second-level cache, so x is read once; its lines are asked for between the tiles of the block before;
- the first tile of rows reads the block where it lies and leaves it packed for the others;
- eight rows of a block are finished in the first-level cache and written as runs of some hundred pixels, and past the cache
  where y is larger: an ordinary store reads each line that it writes, another 51 MB here.

What binds then is the multiply-add: 87 % of its rate.

Channels are summed in runs of at most RUN_PRODUCTS, and the sums added up: the largest error in float32 is 4e-7 to 7e-7 of the largest
output, for 64 channels as for 2048.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift, tile_product
from funcnn.kernels.cpu.vector.rows import add_row, clear_row, copy_row
from funcnn.kernels.cpu.vector.streaming import prefetch, stream_sum
from funcnn.kernels.cpu.vector.tiles import RUN_PRODUCTS, tile_keep
from funcnn.kernels.cpu.vector.transpose import lanes_of


# ---- pixels that strides take -------------------------------------------------------------------------------------------
@device_function
def take_plane(chunk, worker, x, taken, size, out, stride):
    """Works on one (n, c)."""
    for o in range(out[0]):
        for p in range(out[1]):
            source = pointer(x, ((chunk * size[0] + o * stride[0]) * size[1] + p * stride[1]) * size[2])
            target = pointer(taken, ((chunk * out[0] + o) * out[1] + p) * out[2])
            for q in range(out[2]):
                target[q] = source[q * stride[2]]


@kernel(
    touches={
        "x": lambda planes, size: planes * size[0] * size[1] * size[2],
        "taken": lambda planes, out: planes * out[0] * out[1] * out[2],
    }
)
def take_pixels(x, taken, planes, size, out, stride, threads):
    """Writes taken (planes, *out) = every ``stride``-th pixel of x (planes, *size)."""
    parallel_for(take_plane, planes, threads, (x, taken, size, out, stride))


@device_function
def put_plane(chunk, worker, taken, bias, dx, channels, size, out, stride):
    """Works on one (n, c)."""
    whole, add = size[0] * size[1] * size[2], bias[chunk % channels]
    plane = pointer(dx, chunk * whole)
    for i in range(whole):
        plane[i] = add
    for o in range(out[0]):
        for p in range(out[1]):
            target = shift(plane, (o * stride[0] * size[1] + p * stride[1]) * size[2])
            source = pointer(taken, ((chunk * out[0] + o) * out[1] + p) * out[2])
            for q in range(out[2]):
                target[q * stride[2]] = source[q]


@kernel(
    touches={
        "taken": lambda planes, out: planes * out[0] * out[1] * out[2],
        "bias": lambda channels: channels,
        "dx": lambda planes, size: planes * size[0] * size[1] * size[2],
    }
)
def put_pixels(taken, bias, dx, planes, channels, size, out, stride, threads):
    """Writes every ``stride``-th pixel of dx (planes, *size) = taken (planes, *out), the others the bias of their channel."""
    parallel_for(put_plane, planes, threads, (taken, bias, dx, channels, size, out, stride))


# ---- pixels of a batch in pieces of images --------------------------------------------------------------------------------
@device_function
def find_pieces(start, many, pixels, x_image, y_image, pieces):
    """Cut ``many`` pixels of the batch where images of ``pixels`` end; returns the number of pieces.

    Of each piece: length, place in x, place in y.
    """
    n, q, count = start // pixels, start % pixels, 0
    while many > 0:
        length = min(many, pixels - q)
        pieces[3 * count] = length
        pieces[3 * count + 1] = n * x_image + q
        pieces[3 * count + 2] = n * y_image + q
        many, n, q, count = many - length, n + 1, 0, count + 1
    return count


@device_function
def pack_pixels(x, block, packed, count, wide, apart):
    """Writes packed[j // wide, c, j % wide] = channel c of the block's pixel j; channels are ``apart``."""
    pieces, found = block
    j = 0
    for f in range(found):
        source, left = shift(x, pieces[3 * f + 1]), pieces[3 * f]
        while left > 0:
            at = j % wide
            length, target = min(left, wide - at), shift(packed, (j - at) * count + at)
            for c in range(count):
                copy_row(shift(target, c * wide), shift(source, c * apart), length)
            source, left, j = shift(source, length), left - length, j + length


@device_function
def ask_for(x, block, low, high, apart):
    """Has channels ``low`` to ``high`` of a block of pixels brought to the second-level cache."""
    pieces, found = block
    for f in range(found):
        for c in range(low, high):
            row = shift(x, pieces[3 * f + 1] + c * apart)
            for j in range(0, pieces[3 * f], lanes_of(row)):
                prefetch(shift(row, j))


@device_function
def put_row(row, number, y, block, past):
    """A row of results plus ``number`` to where its pixels lie in y."""
    pieces, found = block
    j = 0
    for f in range(found):
        length, source, target = pieces[3 * f], shift(row, j), shift(y, pieces[3 * f + 2])
        if past:
            stream_sum(target, source, length, number)
        else:
            add_row(target, source, length, number)
        j += length


# ---- the product ------------------------------------------------------------------------------------------------------------
@device_function
def product_runs(count, a, b, c, wide, tile):
    """``tile_product`` in runs of at most RUN_PRODUCTS."""
    runs = (count + RUN_PRODUCTS - 1) // RUN_PRODUCTS
    for run in range(runs):
        first = count * run // runs
        many = count * (run + 1) // runs - first
        tile_product(many, shift(a, first * tile[0]), shift(b, first * tile[1]), c, wide, run > 0)


@device_function
def keep_runs(count, a, x, apart, kept, c, wide, tile):
    """``tile_keep`` in runs of at most RUN_PRODUCTS."""
    runs = (count + RUN_PRODUCTS - 1) // RUN_PRODUCTS
    for run in range(runs):
        first = count * run // runs
        many, copy = count * (run + 1) // runs - first, shift(kept, first * tile[1])
        tile_keep(many, shift(a, first * tile[0]), shift(x, first * apart), apart, copy, c, wide, run > 0)


@device_function
def multiply_block(x, weights, bias, y, packed, here, following, tile, sizes, panels, apart, past):
    """All channels of a block of pixels with some panels of the weights.

    here, following: the pieces of this block and of the next and their number. sizes: channels of x and of y, pixels that the
    block has and that there is room for. apart: from one channel to the next.
    """
    rows, columns = tile
    count, lanes, pixels, wide = sizes
    pieces, found = here
    c, asked = shift(packed, count * wide), 0
    fresh = found == 1 and pixels % columns == 0
    portion = (count - 1) // ((panels[1] - panels[0]) * (wide // columns)) + 1
    if not fresh:
        clear_row(shift(packed, pixels // columns * columns * count), min(pixels % columns, 1) * count * columns)
        pack_pixels(x, here, packed, count, columns, apart)
    for k in range(panels[0], panels[1]):
        panel = shift(weights, k * count * rows)
        for t in range(0, pixels, columns):
            if fresh and k == panels[0]:
                source = shift(x, pieces[1] + t)
                keep_runs(count, panel, source, apart, shift(packed, t * count), shift(c, t), wide, tile)
            else:
                product_runs(count, panel, shift(packed, t * count), shift(c, t), wide, tile)
            ask_for(x, following, asked, min(asked + portion, count), apart)
            asked += portion
        for i in range(min(rows, lanes - k * rows)):
            put_row(shift(c, i * wide), bias[k * rows + i], shift(y, (k * rows + i) * apart), here, past)


@device_function
def multiply_blocks(chunk, worker, x, weights, bias, y, scratch, places, tile, sizes, blocks, past):
    """Works on some blocks of pixels of the batch, for some tiles of a group's output channels."""
    count, lanes, pixels, batch, groups = sizes
    wide, each, pixel_chunks, lane_chunks, lane_tiles = blocks
    panels = (lanes + tile[0] - 1) // tile[0]
    first, g = chunk % pixel_chunks * each * wide, chunk // pixel_chunks // lane_chunks
    low = chunk // pixel_chunks % lane_chunks * lane_tiles
    source, target = pointer(x, g * count * pixels), pointer(y, g * lanes * pixels)
    factors, add = pointer(weights, g * panels * count * tile[0]), pointer(bias, g * lanes)
    packed, end = pointer(scratch, worker * (count + tile[0]) * wide), batch * pixels
    more = 0
    for start in range(first - wide, min(first + each * wide, end), wide):
        half = (start - first) // wide % 2
        pieces, found = pointer(places, (worker * 2 + half) * 3 * wide), more
        following, after = pointer(places, (worker * 2 + 1 - half) * 3 * wide), min(wide, end - start - wide)
        more = find_pieces(start + wide, after, pixels, groups * count * pixels, groups * lanes * pixels, following)
        if start >= first:
            multiply_block(
                source, factors, add, target, packed, (pieces, found), (following, more), tile,
                (count, lanes, min(wide, end - start), wide), (low, min(low + lane_tiles, panels)), pixels, past,
            )  # fmt: skip


@kernel(
    touches={
        "x": lambda sizes: sizes[3] * sizes[4] * sizes[0] * sizes[2],
        "weights": lambda tile, sizes: sizes[4] * -(-sizes[1] // tile[0]) * tile[0] * sizes[0],
        "bias": lambda sizes: sizes[4] * sizes[1],
        "y": lambda sizes: sizes[3] * sizes[4] * sizes[1] * sizes[2],
        "scratch": lambda tile, sizes, blocks, threads: threads * (sizes[0] + tile[0]) * blocks[0],
        "places": lambda blocks, threads: threads * 6 * blocks[0],
    }
)
def pointwise(x, weights, bias, y, scratch, places, tile, sizes, blocks, past, threads):
    """Writes y (N, groups * lanes, pixels) = bias + w x for each pixel of x (N, groups * channels, pixels).

    weights: in panels of ``tile[0]`` lanes. scratch: for each thread a block of all channels and of a tile's rows; places: six
    elements a pixel of a block. sizes: channels and lanes of a group, pixels of an image, images, groups. blocks: pixels of a
    block (whole tiles), blocks of a chunk, chunks of pixels, of lanes, tiles of these in one. past: whether y is written
    past the cache.
    """
    args = (x, weights, bias, y, scratch, places, tile, sizes, blocks, past)
    parallel_for(multiply_blocks, sizes[4] * blocks[2] * blocks[3], threads, args)
