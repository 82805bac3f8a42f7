"""Matrix products: C (rows x lanes) = A (rows x count) B (count x lanes), plus a bias, with whatever strides C has.

B is packed into panels as wide as the register tile, each (count, COLUMNS) and read from front to back; it stays in the
second-level cache while all tiles of rows pass. A is read where it lies if its rows are contiguous (eight streams that the
prefetcher follows), else it is packed too. Which of the two factors plays B is the caller's choice: the product may as well
be computed transposed, as C takes strides. 2 rows count lanes flops; packing costs one read and write of B.
"""

from __future__ import annotations

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.tiles import tile_strided
from funcnn.kernels.cpu.vector import pointer, shift

DEEP = 16  # elements of a contiguous column that are moved at a time: a cache line of float32


@device_function
def pack_lanes(chunk, worker, b, packed, count, lanes, wide, along, across):
    """Panel ``chunk``: packed[k, j] = b[k * along + (chunk * wide + j) * across], zero beyond ``lanes``."""
    source, target = pointer(b, chunk * wide * across), pointer(packed, chunk * count * wide)
    valid = min(wide, lanes - chunk * wide)
    if across == 1:
        for k in range(count):
            row, place = shift(source, k * along), shift(target, k * wide)
            for j in range(valid):
                place[j] = row[j]
    else:
        for start in range(0, count, DEEP):
            deep = min(DEEP, count - start)
            for j in range(valid):
                row, place = shift(source, start * along + j * across), shift(target, start * wide + j)
                for k in range(deep):
                    place[k * wide] = row[k * along]
    if valid < wide:
        for k in range(count):
            for j in range(valid, wide):
                target[k * wide + j] = 0


@device_function
def put_tile(c, y, rows, lanes, wide, down, across, bias, add):
    """Write a tile to y with its strides, plus a bias for each row (add 1) or lane (add 2)."""
    if across == 1:
        for i in range(rows):
            source, target = shift(c, i * wide), shift(y, i * down)
            if add == 2:
                for j in range(lanes):
                    target[j] = source[j] + bias[j]
            elif add == 1:
                for j in range(lanes):
                    target[j] = source[j] + bias[i]
            else:
                for j in range(lanes):
                    target[j] = source[j]
    else:
        for j in range(lanes):
            target = shift(y, j * across)
            for i in range(rows):
                extra = bias[i] if add == 1 else bias[j]
                target[i * down] = c[i * wide + j] + extra if add else c[i * wide + j]


@device_function
def multiply_block(chunk, worker, a, packed, y, bias, scratch, tile, sizes, block, strides, add):
    """A block of rows with one panel."""
    rows, wide = tile
    many, count, lanes = sizes
    along, down, panel, y_down, y_across = strides
    panels = (lanes + wide - 1) // wide
    first, j = chunk // panels * block, chunk % panels
    b, c = pointer(packed, j * count * wide), pointer(scratch, worker * rows * wide)
    for t in range(first, min(first + block, (many + rows - 1) // rows)):
        start = t * rows if panel else min(t * rows, many - rows)
        tile_strided(count, pointer(a, t * panel if panel else start * down), along, down, b, wide, c, wide, False)
        target = pointer(y, start * y_down + j * wide * y_across)
        extra = pointer(bias, start if add == 1 else (j * wide if add == 2 else 0))
        put_tile(c, target, min(rows, many - start), min(wide, lanes - j * wide), wide, y_down, y_across, extra, add)


@kernel
def pack_matrix(b, packed, count, lanes, wide, along, across, threads):
    """Panels (count, wide) of a matrix whose elements (k, j) lie ``k * along + j * across`` into b."""
    parallel_for(pack_lanes, (lanes + wide - 1) // wide, threads, (b, packed, count, lanes, wide, along, across))


@kernel
def multiply_packed(a, packed, y, bias, scratch, tile, sizes, block, strides, add, threads):
    """y = a x packed (+ bias). sizes: rows, count, lanes. block: tiles of rows in a chunk.

    strides: of a along and down, between its packed panels (0: it is read in place and has at least a tile of rows), of y
    down and across. add: 1, the bias is one number for each row; 2, for each lane; 0, there is none.
    """
    panels = (sizes[2] + tile[1] - 1) // tile[1]
    tiles = (sizes[0] + tile[0] - 1) // tile[0]
    chunks = panels * ((tiles + block - 1) // block)
    parallel_for(multiply_block, chunks, threads, (a, packed, y, bias, scratch, tile, sizes, block, strides, add))
