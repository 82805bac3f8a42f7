"""The weight gradient of a convolution: dw[k, r] = sum over pixels of dy[k, pixel] * image[r, pixel].

The rows r are those of the forward pass (``gather``): places in the padded image. The cotangent is copied into the same
pixel grid, with zeros where the grid has no output, so that both are rows of consecutive pixels and a tile of dot
products runs along them: 2 N K P Q R flops, DOTS_A + DOTS_B loaded vectors for DOTS_A * DOTS_B multiply-adds.

The largest error in float32 is 1e-7 to 2e-7 of the largest gradient: a lane of a vector sums some 64 pixels, the rest is added
in float64.

Two ways to share the work. ``convolve_weight_grad``: a chunk owns a block of (k, r) and goes through all images, so nothing
is reduced between threads. ``image_weight_grad``, where dw is small: a chunk owns some images, copies them itself, and has
sums of its own for all of dw, which are added up in the order of the chunks.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.conv.gather import SLACK_ELEMENTS, copy_planes
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import clear_row
from funcnn.kernels.cpu.vector.tiles import tile_dots


@device_function
def add_dots(image, dy, places, offsets, sums, at, tile, pixels, inner, lane_tiles, row_tiles):
    """``sums`` from ``at`` on += the products of one plane: image and dy are (array, where the plane begins).

    lane_tiles, row_tiles: the first tile and the one after the last.
    """
    many, each = tile
    low, high = lane_tiles
    first, last = row_tiles
    for start in range(0, pixels, inner):
        length = min(inner, pixels - start)
        rows, cotangents = pointer(image[0], image[1] + start), pointer(dy[0], dy[1] + start)
        for k in range(low, high):
            for r in range(first, last):
                place = pointer(sums, at + ((k - low) * (last - first) + r - first) * many * each)
                tile_dots(length, cotangents, pointer(places, k * many), rows, pointer(offsets, r * each), place)


@device_function
def put_dots(sums, at, dw, g, k, r, tile, lanes, count):
    """Writes the tile (k, r) of a group's dw from the sums that begin at ``at``."""
    many, each = tile
    for i in range(min(many, lanes - k * many)):
        target = pointer(dw, (g * lanes + k * many + i) * count + r * each)
        for j in range(min(each, count - r * each)):
            target[j] = sums[at + i * each + j]


@device_function
def weight_grad_chunk(chunk, worker, image, dy, places, offsets, dw, scratch, tile, blocks, sizes, steps, inner):
    """Works on a block of output channels and of rows, summed over all planes of all images."""
    many, each = tile
    lane_blocks, lane_tiles, row_blocks, row_tiles = blocks
    lanes, count, batch, planes, pixels = sizes
    row_block, rest = chunk % row_blocks, chunk // row_blocks
    lane_block, g = rest % lane_blocks, rest // lane_blocks
    first, last = row_block * row_tiles, min((row_block + 1) * row_tiles, (count + each - 1) // each)
    low, high = lane_block * lane_tiles, min((lane_block + 1) * lane_tiles, (lanes + many - 1) // many)
    at = worker * lane_tiles * row_tiles * many * each
    clear_row(pointer(scratch, at), lane_tiles * row_tiles * many * each)
    for n in range(batch):
        for plane in range(planes):
            rows, cotangents = (
                n * steps[0] + g * steps[1] + plane * steps[2],
                n * steps[3] + g * steps[4] + plane * steps[5],
            )
            add_dots(
                (image, rows),
                (dy, cotangents),
                places,
                offsets,
                scratch,
                at,
                tile,
                pixels,
                inner,
                (low, high),
                (first, last),
            )
    for k in range(low, high):
        for r in range(first, last):
            put_dots(
                scratch, at + ((k - low) * (last - first) + r - first) * many * each, dw, g, k, r, tile, lanes, count
            )


@kernel(
    touches={
        "image": lambda offsets, sizes, steps, groups: (
            (sizes[2] - 1) * steps[0]
            + (groups - 1) * steps[1]
            + (sizes[3] - 1) * steps[2]
            + int(offsets.max())
            + sizes[4]
        ),
        "dy": lambda places, sizes, steps, groups: (
            (sizes[2] - 1) * steps[3]
            + (groups - 1) * steps[4]
            + (sizes[3] - 1) * steps[5]
            + int(places.max())
            + sizes[4]
        ),
        "places": lambda tile, sizes: -(-sizes[0] // tile[0]) * tile[0],
        "offsets": lambda tile, sizes: -(-sizes[1] // tile[1]) * tile[1],
        "dw": lambda sizes, groups: groups * sizes[0] * sizes[1],
        "scratch": lambda tile, blocks, threads: threads * blocks[1] * blocks[3] * tile[0] * tile[1],
    }
)
def convolve_weight_grad(image, dy, places, offsets, dw, scratch, tile, blocks, sizes, steps, groups, inner, threads):
    """dw (groups * lanes, rows) from the image and the cotangent in its pixel grid.

    places, offsets: where channels of dy and rows of the image begin, repeated to whole tiles. blocks: channel blocks, tiles
    in one, row blocks, tiles in one. sizes: lanes, rows, images, planes, pixels (whole vectors). steps: from image, group and
    plane to the next, of the image and of dy. inner: pixels at a time, so that rows stay in the first-level cache.
    """
    args = (image, dy, places, offsets, dw, scratch, tile, blocks, sizes, steps, inner)
    parallel_for(weight_grad_chunk, groups * blocks[0] * blocks[2], threads, args)


@device_function
def image_dots(chunk, worker, x, dy, images, places, offsets, sums, tile, sizes, step, groups, inner, layout, around):
    """Works on the sums of the images ``chunk * each`` and following: (groups, lane tiles, row tiles, tile)."""
    lanes, count, channels, batch, planes, pixels, each = sizes
    lane_tiles, row_tiles = (lanes + tile[0] - 1) // tile[0], (count + tile[1] - 1) // tile[1]
    size = lane_tiles * row_tiles * tile[0] * tile[1]
    base = worker * (channels * layout[2][0] * layout[4] + lanes * around[2][0] * around[4] + 2 * SLACK_ELEMENTS)
    beside = base + channels * layout[2][0] * layout[4] + SLACK_ELEMENTS
    clear_row(pointer(sums, chunk * groups * size), groups * size)
    for n in range(chunk * each, min((chunk + 1) * each, batch)):
        for g in range(groups):
            copy_planes(x, (n * groups + g) * channels, images, base, channels, layout)
            copy_planes(dy, (n * groups + g) * lanes, images, beside, lanes, around)
            for plane in range(planes):
                add_dots(
                    (images, base + plane * step), (images, beside + plane * around[4]), places, offsets, sums,
                    (chunk * groups + g) * size, tile, pixels, inner, (0, lane_tiles), (0, row_tiles),
                )  # fmt: skip


@device_function
def join_sums(chunk, worker, sums, dw, tile, chunks, groups, lanes, count):
    """Adds the chunks' sums of one group and one tile of channels in order, and writes them."""
    lane_tiles, row_tiles = (lanes + tile[0] - 1) // tile[0], (count + tile[1] - 1) // tile[1]
    size = row_tiles * tile[0] * tile[1]
    total = pointer(sums, chunk * size)
    for other in range(1, chunks):
        more = pointer(sums, (other * groups * lane_tiles + chunk) * size)
        for i in range(size):
            total[i] += more[i]
    for r in range(row_tiles):
        at = chunk * size + r * tile[0] * tile[1]
        put_dots(sums, at, dw, chunk // lane_tiles, chunk % lane_tiles, r, tile, lanes, count)


@kernel(
    touches={
        "x": lambda sizes, groups, layout: sizes[3] * groups * sizes[2] * layout[0][0] * layout[0][1] * layout[0][2],
        "dy": lambda sizes, groups, around: sizes[3] * groups * sizes[0] * around[0][0] * around[0][1] * around[0][2],
        "images": lambda sizes, layout, around, threads: (
            threads * (sizes[2] * layout[2][0] * layout[4] + sizes[0] * around[2][0] * around[4] + 2 * SLACK_ELEMENTS)
        ),
        "places": lambda tile, sizes: -(-sizes[0] // tile[0]) * tile[0],
        "offsets": lambda tile, sizes: -(-sizes[1] // tile[1]) * tile[1],
        "dw": lambda sizes, groups: groups * sizes[0] * sizes[1],
        "sums": lambda tile, sizes, groups: (
            -(-sizes[3] // sizes[6]) * groups * -(-sizes[0] // tile[0]) * -(-sizes[1] // tile[1]) * tile[0] * tile[1]
        ),
    }
)
def image_weight_grad(
    x, dy, images, places, offsets, dw, sums, tile, sizes, step, groups, inner, layout, around, threads
):
    """dw from x (N, C, D, H, W) and dy. sizes: lanes, rows, channels of a group, images, planes, pixels
    (whole vectors), images of a chunk.

    images: room for one group of an image of x and of dy for each thread. step: from a plane of x' image to the next.
    layout, around: how x and dy are laid out, see ``copy_image``. The others: see ``convolve_weight_grad``.
    """
    lanes, count, _, batch, _, _, each = sizes
    chunks = (batch + each - 1) // each
    args = (x, dy, images, places, offsets, sums, tile, sizes, step, groups, inner, layout, around)
    parallel_for(image_dots, chunks, threads, args)
    tiles = groups * ((lanes + tile[0] - 1) // tile[0])
    parallel_for(join_sums, tiles, threads, (sums, dw, tile, chunks, groups, lanes, count))
