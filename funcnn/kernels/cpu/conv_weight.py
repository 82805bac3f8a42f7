"""The weight gradient of a convolution: dw[k, r] = sum over pixels of dy[k, pixel] * image[r, pixel].

The rows r are those of the forward pass (``conv``): places in the padded image. The cotangent is copied into the same
pixel grid, with zeros where the grid has no output, so that both are rows of consecutive pixels and a tile of dot
products runs along them: 2 N K P Q R flops, DOTS_A + DOTS_B loaded vectors for DOTS_A * DOTS_B multiply-adds. A chunk owns a
block of (k, r) and goes through all images, so nothing is reduced between threads.
"""

from __future__ import annotations

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.tiles import tile_dots
from funcnn.kernels.cpu.vector import pointer


@device_function
def weight_grad_chunk(chunk, worker, image, dy, places, offsets, dw, scratch, tile, blocks, sizes, steps, inner):
    """A block of output channels and of rows, summed over all planes of all images."""
    many, each = tile
    lane_blocks, lane_tiles, row_blocks, row_tiles = blocks
    lanes, count, batch, planes, pixels = sizes
    row_block, rest = chunk % row_blocks, chunk // row_blocks
    lane_block, g = rest % lane_blocks, rest // lane_blocks
    first, last = row_block * row_tiles, min((row_block + 1) * row_tiles, (count + each - 1) // each)
    low, high = lane_block * lane_tiles, min((lane_block + 1) * lane_tiles, (lanes + many - 1) // many)
    sums = pointer(scratch, worker * lane_tiles * row_tiles * many * each)
    for i in range(lane_tiles * row_tiles * many * each):
        sums[i] = 0
    for n in range(batch):
        for plane in range(planes):
            for start in range(0, pixels, inner):
                length = min(inner, pixels - start)
                rows = pointer(image, n * steps[0] + g * steps[1] + plane * steps[2] + start)
                cotangents = pointer(dy, n * steps[3] + g * steps[4] + plane * steps[5] + start)
                for k in range(low, high):
                    for r in range(first, last):
                        place = pointer(
                            scratch, (worker * lane_tiles * row_tiles + (k - low) * row_tiles + r - first) * many * each
                        )
                        tile_dots(
                            length, cotangents, pointer(places, k * many), rows, pointer(offsets, r * each), place
                        )
    for k in range(low, high):
        for r in range(first, last):
            at = ((k - low) * row_tiles + r - first) * many * each
            for i in range(min(many, lanes - k * many)):
                target = pointer(dw, (g * lanes + k * many + i) * count + r * each)
                for j in range(min(each, count - r * each)):
                    target[j] = sums[at + i * each + j]


@kernel
def convolve_weight_grad(image, dy, places, offsets, dw, scratch, tile, blocks, sizes, steps, groups, inner, threads):
    """dw (groups * lanes, rows) from the image and the cotangent in its pixel grid.

    places, offsets: where channels of dy and rows of the image begin, repeated to whole tiles. blocks: channel blocks, tiles
    in one, row blocks, tiles in one. sizes: lanes, rows, images, planes, pixels (whole vectors). steps: from image, group and
    plane to the next, of the image and of dy. inner: pixels at a time, so that rows stay in the first-level cache.
    """
    args = (image, dy, places, offsets, dw, scratch, tile, blocks, sizes, steps, inner)
    parallel_for(weight_grad_chunk, groups * blocks[0] * blocks[2], threads, args)
