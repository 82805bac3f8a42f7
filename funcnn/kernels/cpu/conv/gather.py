"""Convolution of (N, C, D, H, W) arrays as a product that never unfolds its input.

The input is copied once, padded, and for strides above 1 split by phase (element w of a row goes to plane ``w % stride``,
place ``w // stride``). Then the elements that one tap (c, i, j) multiplies lie in consecutive memory for all pixels of an
output plane, if the plane is taken with the input's row pitch: ``pixel = p * pitch + q``. So the rows of the unfolded matrix
are addresses into the image (``offsets``), ``tile_gather`` multiplies them with packed weights, and the few pixels with
q beyond the output's width are computed and dropped. Without padding and stride the input itself is the image.

Rows of the product are output channels, its columns pixels, its inner length R the taps (c, i, j): 2 N K P Q R flops. A tile
reads R columns of weights (packed, sequential) and R rows of pixels from the second-level cache.

The input's gradient is the same product with other tables: for each phase of the input, the taps that reach it, over the
cotangent padded. Its tables and the forward's are made in ``tables``. The weight's gradient is in ``gather_weight``.

Taps are summed in runs of at most RUN_PRODUCTS, and the sums added up, so that the largest error in float32 stays at 3e-7 to 4e-7 of
the largest output, for 64 channels as for 2048 (one running sum: 1.1e-6 for 64 channels of 3 x 3 taps, 2.7e-6 for 512).

Where there are enough images, each is copied by the worker that multiplies it and stays in its cache for all phases.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import add_row, clear_row
from funcnn.kernels.cpu.vector.split import pad_plane, split_plane
from funcnn.kernels.cpu.vector.tiles import FEW_ROWS, RUN_PRODUCTS, tile_few, tile_gather

SLACK_ELEMENTS = 128  # beyond an image that a tile may read


# ---- the padded, phase-split image --------------------------------------------------------------------------------------
@device_function
def copy_plane(x, plane, image, place, layout):
    """x[plane] (D, H, W) to image (Dp, sh, sw, Hs, Ws), slices of ``slice_size`` elements, from ``place`` on.

    The helpers get pointers: of arrays each call would count its uses, in a line that all workers share.
    """
    source = pointer(x, plane * layout[0][0] * layout[0][1] * layout[0][2])
    if layout[3][0] * layout[3][1] == 1:
        pad_plane(source, pointer(image, place), layout)
    else:
        split_plane(source, pointer(image, place), layout)


@device_function
def copy_planes(x, first, image, place, planes, layout):
    """Planes ``first`` and following of x, and zeros into the slack behind them."""
    size = layout[2][0] * layout[4]
    for c in range(planes):
        copy_plane(x, first + c, image, place + c * size, layout)
    clear_row(pointer(image, place + planes * size), SLACK_ELEMENTS)


@device_function
def copy_plane_chunk(chunk, worker, x, image, layout):
    """Works on one (n, c)."""
    copy_plane(x, chunk, image, chunk * layout[2][0] * layout[4], layout)


@kernel(
    touches={
        "x": lambda planes, layout: planes * layout[0][0] * layout[0][1] * layout[0][2],
        "image": lambda planes, layout: planes * layout[2][0] * layout[4] + SLACK_ELEMENTS,
    }
)
def copy_image(x, image, planes, layout, threads):
    """Copies all planes of x into the image. layout: D, H, W; padding before; places; phases; elements of a slice."""
    parallel_for(copy_plane_chunk, planes, threads, (x, image, layout))
    used = planes * layout[2][0] * layout[4]
    clear_row(pointer(image, used), image.size - used)


# ---- outputs that no tap reaches ------------------------------------------------------------------------------------------
@device_function
def fill_plane(chunk, worker, bias, y, parts, channels, size):
    """Works on the pixels of all parts in a plane of y."""
    add = bias[chunk % channels]
    for i in range(parts.shape[0]):
        for d in range(parts[i, 4]):
            for h in range(parts[i, 5]):
                target = pointer(y, chunk * size + parts[i, 0] + d * parts[i, 1] + h * parts[i, 2])
                for w in range(parts[i, 6]):
                    target[w * parts[i, 3]] = add


@kernel(
    touches={
        "bias": lambda sizes: sizes[1],
        "y": lambda sizes: sizes[0] * sizes[2],
    }
)
def fill_pixels(bias, y, parts, sizes, threads):
    """Writes y = bias for the pixels of parts: of each where it begins in a plane, steps of planes, rows and columns, and their elements.

    sizes: planes of all images, channels, elements of a plane.
    """
    parallel_for(fill_plane, sizes[0], threads, (bias, y, parts, sizes[1], sizes[2]))


# ---- the product ------------------------------------------------------------------------------------------------------------
@device_function
def store_tile(c, columns, y, bias, valid, start, grid, strides):
    """Writes the tile's pixels that exist, plus the bias, to where they belong in y."""
    _, P, Q, pitch = grid
    p, q, j = start // pitch, start % pitch, 0
    while j < columns and p < P:
        length = min(columns - j, Q - q)
        for i in range(valid):
            add = bias[i]
            source = shift(c, i * columns + j)
            target = shift(y, i * strides[1] + p * strides[3] + q * strides[4])
            if strides[4] == 1:
                add_row(target, source, length, add)
            else:
                for t in range(length):
                    target[t * strides[4]] = source[t] + add
        j += pitch - q
        p, q = p + 1, 0


@device_function
def gather_runs(count, panel, image, offsets, c, rows, columns):
    """The tile c from all of ``count`` taps, in runs of at most RUN_PRODUCTS."""
    runs = (count + RUN_PRODUCTS - 1) // RUN_PRODUCTS
    for run in range(runs):
        first = count * run // runs
        many, a, places = count * (run + 1) // runs - first, shift(panel, first * rows), shift(offsets, first)
        if rows == FEW_ROWS:
            tile_few(many, a, image, places, c, columns, run > 0)
        else:
            tile_gather(many, a, image, places, c, columns, run > 0)


@device_function
def convolve_plane(image, factors, offsets, count, bias, y, c, tile, grid, lanes, tiles, panels, strides):
    """Tiles ``tiles[0]`` to ``tiles[1]`` of the pixels of an output plane, ``panels`` likewise of a group's channels.

    All are pointers to where the group's elements begin: image and y at the plane, factors at its panels.
    """
    rows, columns = tile
    pixels = (grid[1] - 1) * grid[3] + grid[2]
    for t in range(tiles[0], min(tiles[1], (pixels + columns - 1) // columns)):
        start = max(min(t * columns, pixels - columns), 0)
        for k in range(panels[0], min(panels[1], (lanes + rows - 1) // rows)):
            panel, source = shift(factors, k * count * rows), shift(image, start)
            gather_runs(count, panel, source, offsets, c, rows, columns)
            target = shift(y, k * rows * strides[1])
            store_tile(c, columns, target, shift(bias, k * rows), min(rows, lanes - k * rows), start, grid, strides)


@device_function
def convolve_chunk(chunk, worker, image, weights, offsets, bias, y, scratch, tile, grid, lanes, blocks, steps, strides):
    """Works on some tiles of pixels of one plane, for some tiles of one group's output channels."""
    pixel_blocks, pixel_tiles, lane_blocks, lane_tiles = blocks
    block, chunk = chunk % pixel_blocks, chunk // pixel_blocks
    lane_block, chunk = chunk % lane_blocks, chunk // lane_blocks
    plane, chunk = chunk % grid[0], chunk // grid[0]
    g, n = chunk % strides[5], chunk // strides[5]
    base = n * steps[0] + g * steps[1] + plane * steps[2]
    place = n * strides[0] + g * lanes * strides[1] + plane * strides[2] + strides[6]
    tiles = (block * pixel_tiles, (block + 1) * pixel_tiles)
    panels = (lane_block * lane_tiles, (lane_block + 1) * lane_tiles)
    c, count = pointer(scratch, worker * tile[0] * tile[1]), offsets.size
    factors = pointer(weights, g * ((lanes + tile[0] - 1) // tile[0]) * count * tile[0])
    convolve_plane(
        pointer(image, base), factors, pointer(offsets, 0), count, pointer(bias, g * lanes), pointer(y, place), c, tile, grid,
        lanes, tiles, panels, strides,
    )  # fmt: skip


@kernel(
    touches={
        "image": lambda offsets, tile, grid, steps, strides, batch: (
            (batch - 1) * steps[0]
            + (strides[5] - 1) * steps[1]
            + (grid[0] - 1) * steps[2]
            + int(offsets.max())
            + max((grid[1] - 1) * grid[3] + grid[2], tile[1])
        ),
        "weights": lambda offsets, tile, lanes, strides: strides[5] * -(-lanes // tile[0]) * tile[0] * offsets.size,
        "bias": lambda lanes, strides: strides[5] * lanes,
        "scratch": lambda tile, threads: threads * tile[0] * tile[1],
        "y": lambda grid, lanes, strides, batch: (
            (batch - 1) * strides[0]
            + (strides[5] * lanes - 1) * strides[1]
            + (grid[0] - 1) * strides[2]
            + (grid[1] - 1) * strides[3]
            + (grid[2] - 1) * strides[4]
            + strides[6]
            + 1
        ),
    }
)
def convolve(image, weights, offsets, bias, y, scratch, tile, grid, lanes, blocks, steps, strides, batch, threads):
    """Writes y = bias + weights x image, where row r of the image's matrix begins ``offsets[r]`` into its group.

    grid: planes of an output, its height and width, and the image's row pitch. lanes: output channels of a group.
    blocks: pixel blocks, tiles in one, channel blocks, tiles in one. steps: the image's from image, group and plane to the
    next. strides: y's of n, k, plane, row and column, the number of groups, and where y begins.
    """
    chunks = batch * strides[5] * grid[0] * blocks[2] * blocks[0]
    args = (image, weights, offsets, bias, y, scratch, tile, grid, lanes, blocks, steps, strides)
    parallel_for(convolve_chunk, chunks, threads, args)


@device_function
def convolve_image(
    chunk, worker, x, images, weights, offsets, bias, y, scratch, tile, lanes, layout, inner, parts, strides
):
    """Works on one group of one image: its own copy, small enough for the worker's cache, and all of its outputs, part for part."""
    groups = strides[2]
    g, n = chunk % groups, chunk // groups
    image = worker * (inner * layout[2][0] * layout[4] + SLACK_ELEMENTS)
    copy_planes(x, chunk * inner, images, image, inner, layout)
    c, everything, panels = pointer(scratch, worker * tile[0] * tile[1]), (0, y.size), (lanes + tile[0] - 1) // tile[0]
    for p in range(parts.shape[0]):
        first, count, step = parts[p, 0], parts[p, 1], parts[p, 2]
        grid = (parts[p, 4], parts[p, 5], parts[p, 6], parts[p, 7])
        steps = (strides[0], strides[1], parts[p, 8], parts[p, 9], parts[p, 10])
        factors = pointer(weights, (first * groups + g * count) * panels * tile[0])
        place = n * strides[0] + g * lanes * strides[1] + parts[p, 3]
        for plane in range(grid[0]):
            convolve_plane(
                pointer(images, image + plane * step), factors, pointer(offsets, first), count, pointer(bias, g * lanes),
                pointer(y, place + plane * steps[2]), c, tile, grid, lanes, everything, everything, steps,
            )  # fmt: skip


@kernel(
    touches={
        "x": lambda layout, inner, strides, batch: (
            batch * strides[2] * inner * layout[0][0] * layout[0][1] * layout[0][2]
        ),
        "images": lambda layout, inner, threads: threads * (inner * layout[2][0] * layout[4] + SLACK_ELEMENTS),
        "weights": lambda offsets, tile, lanes, strides: strides[2] * -(-lanes // tile[0]) * tile[0] * offsets.size,
        "bias": lambda lanes, strides: strides[2] * lanes,
        "y": lambda strides, batch: batch * strides[0],
        "scratch": lambda tile, threads: threads * tile[0] * tile[1],
    }
)
def convolve_images(
    x, images, weights, offsets, bias, y, scratch, tile, lanes, layout, inner, parts, strides, batch, threads
):
    """``convolve`` of x, of ``inner`` channels a group, each image copied once by the worker that multiplies it.

    images: room for one group of one image for each thread. parts: a row for each product of the same image: where its
    offsets begin in ``offsets``, how many there are; from an image's plane to the next; where its outputs begin in y; grid;
    y's steps of plane, row and column. weights: those of the parts in turn. strides: y's of n and k, the number of groups.
    The others: see there.
    """
    args = (x, images, weights, offsets, bias, y, scratch, tile, lanes, layout, inner, parts, strides)
    parallel_for(convolve_image, batch * strides[2], threads, args)
