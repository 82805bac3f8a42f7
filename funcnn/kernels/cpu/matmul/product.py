"""Matrix products: C (many x lanes) = A (many x count) B (count x lanes) with an epilogue, whatever strides they have.

B is packed into panels as wide as the register tile, each (count, COLUMNS) and read from front to back; it stays in the
second-level cache while all tiles of rows pass. A is read where it lies if its rows are contiguous (eight streams that the
prefetcher follows), else it is packed too. Which of the two factors plays B is the caller's choice: the product may as well
be computed transposed, as C takes strides. 2 many count lanes flops; packing costs one read and write of B.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.matmul.epilogue import EACH_LANE, NO_AFFINE, activate, add_residual, finish_tile
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row
from funcnn.kernels.cpu.vector.tiles import tile_strided
from funcnn.kernels.cpu.vector.transpose import transpose


@device_function
def pack_lanes(chunk, worker, b, packed, count, lanes, wide, along, across):
    """Works on panel ``chunk``: packed[k, j] = b[k * along + (chunk * wide + j) * across], zero beyond ``lanes``; one stride is 1."""
    source, target = pointer(b, chunk * wide * across), shift(packed, chunk * count * wide)
    valid = min(wide, lanes - chunk * wide)
    if across == 1:
        for k in range(count):
            copy_row(shift(target, k * wide), shift(source, k * along), valid)
    else:
        transpose(source, across, target, wide, valid, count)
    if valid < wide:
        for k in range(count):
            clear_row(shift(target, k * wide + valid), wide - valid)


@device_function
def put_tile(c, y, rows, lanes, wide, down, across):
    """Writes a tile to y with its strides."""
    if across == 1:
        for i in range(rows):
            copy_row(shift(y, i * down), shift(c, i * wide), lanes)
    else:
        for j in range(lanes):
            target = shift(y, j * across)
            for i in range(rows):
                target[i * down] = c[i * wide + j]


@device_function
def multiply_block(chunk, worker, a, packed, y, extra, residual, tiles, tile, sizes, block, strides, finish):
    """Multiplies a block of rows by one panel."""
    rows, wide = tile
    many, count, lanes = sizes
    along, down, panel, y_down, y_across = strides
    each, scaled, added, activation = finish
    panels = (lanes + wide - 1) // wide
    first, j = chunk // panels * block, chunk % panels
    b, c = shift(packed, j * count * wide), shift(tiles, worker * rows * wide)
    columns = min(wide, lanes - j * wide)
    for t in range(first, min(first + block, (many + rows - 1) // rows)):
        start = t * rows if panel else min(t * rows, many - rows)
        there, place = min(rows, many - start), start * y_down + j * wide * y_across
        tile_strided(count, shift(a, t * panel if panel else start * down), along, down, b, wide, c, wide, False)
        if each != NO_AFFINE:
            place_in_extra, size = (j * wide, lanes) if each == EACH_LANE else (start, many)
            finish_tile(c, there, columns, wide, extra, each, scaled, place_in_extra, size)
        if added:
            add_residual(c, there, columns, wide, pointer(residual, place), y_down, y_across)
        if activation:
            activate(c, rows * wide, activation)
        put_tile(c, pointer(y, place), there, columns, wide, y_down, y_across)


def panels_size(lanes: int, wide: int, count: int) -> int:
    """Counts the elements of the panels of a factor (count, lanes)."""
    return -(-lanes // wide) * wide * count


def work_size(tile: Any, sizes: Any, strides: Any) -> int:
    """Counts the elements of scratch for the panels of b, and for those of a where it is packed."""
    (rows, wide), (many, count, lanes) = tile, sizes
    packs = strides[1] != 1 or many < rows
    return panels_size(lanes, wide, count) + (panels_size(many, rows, count) if packs else 0)


@kernel(
    touches={
        "a": lambda sizes, strides: (sizes[0] - 1) * strides[0] + (sizes[1] - 1) * strides[1] + 1,
        "b": lambda sizes, strides: (sizes[1] - 1) * strides[2] + (sizes[2] - 1) * strides[3] + 1,
        "y": lambda sizes, strides: (sizes[0] - 1) * strides[4] + (sizes[2] - 1) * strides[5] + 1,
        "residual": lambda sizes, strides, finish: (
            (sizes[0] - 1) * strides[4] + (sizes[2] - 1) * strides[5] + 1 if finish[2] else 0
        ),
        "extra": lambda sizes, finish: (
            0
            if finish[0] == NO_AFFINE
            else (sizes[2] if finish[0] == EACH_LANE else sizes[0]) * (2 if finish[1] else 1)
        ),
        "work": work_size,
        "tiles": lambda tile, threads: threads * tile[0] * tile[1],
    }
)
def multiply(a, b, y, extra, residual, work, tiles, tile, sizes, strides, block, finish, threads):
    """Writes y = epilogue(a x b); all arrays flat. sizes: many, count, lanes. block: tiles of rows in a chunk.

    strides: of a down and along, of b down and across, of y down and across. A is packed unless it is 1 along and ``many`` is
    at least a tile. work: room for the panels of b, and for those of a; tiles: a tile for each thread.
    finish: what extra (shift, then scale) has a number for, whether it has scales, whether there is a residual, activation.
    """
    rows, wide = tile
    many, count, lanes = sizes
    a_down, a_along, b_down, b_across, y_down, y_across = strides
    panels, bands = (lanes + wide - 1) // wide, (many + rows - 1) // rows
    packed, left = pointer(work, 0), pointer(work, panels * wide * count)
    parallel_for(pack_lanes, panels, threads, (b, packed, count, lanes, wide, b_down, b_across))
    place, along, down, panel = pointer(a, 0), a_along, a_down, 0
    if a_along != 1 or many < rows:
        parallel_for(pack_lanes, bands, threads, (a, left, count, many, rows, a_along, a_down))
        place, along, down, panel = left, rows, 1, rows * count
    chunks = panels * ((bands + block - 1) // block)
    ways = (along, down, panel, y_down, y_across)
    args = (place, packed, y, extra, residual, pointer(tiles, 0), tile, sizes, block, ways, finish)
    parallel_for(multiply_block, chunks, threads, args)
