"""Convolution with kernels of one tap: for each image, y (K x pixels) = w (K x C) x (C x pixels), and for dx the same of w'.

There is nothing to spread and no padding, so the product is of the arrays as they lie, and its columns are the pixels of all
images in a row (small images share tiles). With strides above 1 the pixels of x, or of dx, lie in rows of their own: the
kernel is told where rows begin, how long they are and how far apart their pixels.

2 N K C P flops on 4 N (K + C) P bytes: 64 channels to 256 on 56 x 56 pixels are 7.0 ms of multiply-adds at the full rate of two
cores and 1.4 ms of copying at that of memory, which add up unless memory is read and written while the tiles multiply:

- a block of pixels (all channels of some tiles, 100 KB) is multiplied with all weights in panels while it is in the
  second-level cache, so x is read once; as many of its lines as there are steps are asked for in the block before;
- the first tile of rows reads the block where it lies and leaves it packed for the others;
- eight rows of a block are finished in the first-level cache and written as runs of some hundred pixels, and past the cache
  where y is larger: an ordinary store reads each line that it writes, another 51 MB here.

What binds then is the multiply-add: 87 % of its rate.
"""

from __future__ import annotations

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.rows import add_row, clear_row, copy_row
from funcnn.kernels.cpu.stream import prefetch, stream_sum
from funcnn.kernels.cpu.tiles import tile_keep
from funcnn.kernels.cpu.turn import lanes_of
from funcnn.kernels.cpu.vector import pointer, shift, tile_product


# ---- pixels of a batch in pieces of rows ----------------------------------------------------------------------------------
@device_function
def find_pieces(start, many, run, x_rows, y_rows, x_strides, y_strides, pieces):
    """Cut ``many`` pixels of the batch where rows end. Of each piece: length, place in x, place in y; returns their number.

    x_rows, y_rows: where the rows of ``run`` pixels of an image begin. strides: from image, channel and pixel to the next.
    """
    row, q = start // run, start % run
    n, r, count = row // x_rows.size, row % x_rows.size, 0
    while many > 0:
        length = min(many, run - q)
        pieces[3 * count] = length
        pieces[3 * count + 1] = n * x_strides[0] + x_rows[r] + q * x_strides[2]
        pieces[3 * count + 2] = n * y_strides[0] + y_rows[r] + q * y_strides[2]
        many, count, q, r = many - length, count + 1, 0, r + 1
        if r == x_rows.size:
            n, r = n + 1, 0
    return count


@device_function
def pack_pixels(x, pieces, found, packed, count, wide, channel, apart):
    """packed[j // wide, c, j % wide] = channel c of the pieces' pixel j, zeros up to whole panels."""
    j = 0
    for f in range(found):
        done = 0
        while done < pieces[3 * f]:
            at = j % wide
            length = min(pieces[3 * f] - done, wide - at)
            source, target = shift(x, pieces[3 * f + 1] + done * apart), shift(packed, (j - at) * count + at)
            for c in range(count):
                if apart == 1:
                    copy_row(shift(target, c * wide), shift(source, c * channel), length)
                else:
                    for t in range(length):
                        target[c * wide + t] = source[c * channel + t * apart]
            j, done = j + length, done + length
    if j % wide:
        for c in range(count):
            clear_row(shift(packed, j // wide * wide * count + c * wide + j % wide), wide - j % wide)


@device_function
def ask_for(x, block, low, high, channel, apart):
    """Have channels ``low`` to ``high`` of a block of pixels brought to the second-level cache."""
    pieces, found = block
    for f in range(found):
        for c in range(low, high):
            row = shift(x, pieces[3 * f + 1] + c * channel)
            for j in range(0, pieces[3 * f] * apart, lanes_of(row)):
                prefetch(shift(row, j))


@device_function
def put_row(row, number, y, block, apart, past):
    """A row of results plus ``number`` to where its pixels lie in y."""
    pieces, found = block
    j = 0
    for f in range(found):
        length, source, target = pieces[3 * f], shift(row, j), shift(y, pieces[3 * f + 2])
        if apart != 1:
            for t in range(length):
                target[t * apart] = source[t] + number
        elif past:
            stream_sum(target, source, length, number)
        else:
            add_row(target, source, length, number)
        j += length


# ---- the product ------------------------------------------------------------------------------------------------------------
@device_function
def multiply_block(x, weights, bias, y, packed, here, following, tile, sizes, panels, x_strides, y_strides, past):
    """All channels of a block of pixels with some panels of the weights.

    here, following: the pieces of this block and of the next and their number. sizes: channels of x and of y, pixels that the
    block has and that there is room for.
    """
    rows, columns = tile
    count, lanes, pixels, wide = sizes
    pieces, found = here
    c, asked = shift(packed, count * wide), 0
    fresh = found == 1 and x_strides[2] == 1 and pixels % columns == 0
    portion = (count - 1) // ((panels[1] - panels[0]) * (wide // columns)) + 1
    if not fresh:
        pack_pixels(x, pieces, found, packed, count, columns, x_strides[1], x_strides[2])
    for k in range(panels[0], panels[1]):
        panel = shift(weights, k * count * rows)
        for t in range(0, pixels, columns):
            if fresh and k == panels[0]:
                source = shift(x, pieces[1] + t)
                tile_keep(count, panel, source, x_strides[1], shift(packed, t * count), shift(c, t), wide)
            else:
                tile_product(count, panel, shift(packed, t * count), shift(c, t), wide, False)
            ask_for(x, following, asked, min(asked + portion, count), x_strides[1], x_strides[2])
            asked += portion
        for i in range(min(rows, lanes - k * rows)):
            target = shift(y, (k * rows + i) * y_strides[1])
            put_row(shift(c, i * wide), bias[k * rows + i], target, here, y_strides[2], past)


@device_function
def multiply_blocks(
    chunk, worker, x, x_rows, weights, bias, y, y_rows, scratch, places, tile, sizes, run, blocks, x_strides, y_strides, past
):  # fmt: skip
    """Some blocks of pixels of the batch, for some tiles of a group's output channels."""
    count, lanes, pixels = sizes
    wide, each, pixel_chunks, lane_chunks, lane_tiles = blocks
    panels = (lanes + tile[0] - 1) // tile[0]
    first, g = chunk % pixel_chunks * each * wide, chunk // pixel_chunks // lane_chunks
    low = chunk // pixel_chunks % lane_chunks * lane_tiles
    source, target = pointer(x, g * count * x_strides[1]), pointer(y, g * lanes * y_strides[1])
    factors, add = pointer(weights, g * panels * count * tile[0]), pointer(bias, g * lanes)
    packed = pointer(scratch, worker * (count + tile[0]) * wide)
    last = min(first + each * wide, pixels)
    found = 0
    for start in range(first, last, wide):
        turn = (start - first) // wide % 2
        pieces = pointer(places, (worker * 2 + turn) * 3 * wide)
        following = pointer(places, (worker * 2 + 1 - turn) * 3 * wide)
        here, after = min(wide, last - start), max(0, min(wide, pixels - start - wide))
        if start == first:
            found = find_pieces(start, here, run, x_rows, y_rows, x_strides, y_strides, pieces)
        more = find_pieces(start + wide, after, run, x_rows, y_rows, x_strides, y_strides, following)
        multiply_block(
            source, factors, add, target, packed, (pieces, found), (following, more), tile, (count, lanes, here, wide),
            (low, min(low + lane_tiles, panels)), x_strides, y_strides, past,
        )  # fmt: skip
        found = more


@kernel
def pointwise(
    x, x_rows, weights, bias, y, y_rows, scratch, places, tile, sizes, run, blocks, x_strides, y_strides, past, groups, threads
):  # fmt: skip
    """y = bias + w x for each pixel of the batch.

    x_rows, y_rows, run, strides: see ``find_pieces``. weights: in panels of ``tile[0]`` output channels. scratch: for each
    thread a block of all channels and of a tile's rows; places: six numbers a pixel of a block. sizes: channels of x and of y
    in a group, pixels of the batch. blocks: pixels of a block (whole tiles), blocks of a chunk, chunks of pixels, of output
    channels, tiles of these in one. past: whether y is written past the cache.
    """
    args = (x, x_rows, weights, bias, y, y_rows, scratch, places, tile, sizes, run, blocks, x_strides, y_strides, past)
    parallel_for(multiply_blocks, groups * blocks[2] * blocks[3], threads, args)
