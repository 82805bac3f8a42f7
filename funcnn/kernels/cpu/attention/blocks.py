"""What attention's forward and backward kernels share: packing of blocks into operands of the register tile, and masks.

The left operand of ``tile_product`` is strips of tile_rows elements for each step of the sum, the right one panels of
tile_columns. Here "rows" and "columns" are always the tile's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, intrinsic
from funcnn.kernels.cpu.machine import tile_shape
from funcnn.kernels.cpu.random.philox import philox_block
from funcnn.kernels.cpu.vector.bits import pick
from funcnn.kernels.cpu.vector.instructions import shift

BLOCK_POSITIONS = 96  # keys or queries; a multiple of every tile's rows and columns


def _rows_twin(p: Any) -> int:
    return tile_shape(p.dtype.itemsize)[0]


@intrinsic(twin=_rows_twin)
def tile_rows(typingctx: Any, p: Any) -> Any:
    """Computes the tile's rows for elements like those at ``p``, a constant to the compiler."""
    return _constant(p, 0)


def _columns_twin(p: Any) -> int:
    return tile_shape(p.dtype.itemsize)[1]


@intrinsic(twin=_columns_twin)
def tile_columns(typingctx: Any, p: Any) -> Any:
    """Computes the tile's columns for elements like those at ``p``, a constant to the compiler."""
    return _constant(p, 1)


def _constant(p: Any, place: int) -> Any:
    from numba.core import types

    value = tile_shape(p.dtype.bitwidth // 8)[place]
    return types.intp(p), lambda context, builder, signature, values: context.get_constant(types.intp, value)


# ---- packing ----------------------------------------------------------------------------------------------------------
@device_function
def transpose(x, stride, n, count, y, step, factor):
    """Writes y[e * step + r] = factor * x[r * stride + e] for n rows r of ``count`` elements."""
    for r in range(n):
        row, column = shift(x, r * stride), shift(y, r)
        for e in range(count):
            column[e * step] = row[e] * factor


@device_function
def pack_transposed(x, n, count, y, step, factor):
    """Bands of ``step`` rows of x (n, count), each as (count, step), the last filled up with zeros: sums over ``count``."""
    for first in range(0, n, step):
        target, last = shift(y, first * count), min(step, n - first)
        if last < step:
            for i in range(count * step):
                target[i] = pick(factor, 0.0, 0.0)
        transpose(shift(x, first * count), count, last, count, target, step, factor)


@device_function
def pack_groups(x, n, count, y, step, factor):
    """Groups of tile_rows columns of x (n, count), ``step`` elements apart, each (n, tile_rows): sums over n."""
    rows = tile_rows(x)
    for first in range(0, count, rows):
        target, wide = shift(y, first // rows * step), min(rows, count - first)
        for i in range(n):
            source, line = shift(x, i * count + first), shift(target, i * rows)
            if wide == rows:
                for r in range(rows):
                    line[r] = source[r] * factor
            else:
                for r in range(wide):
                    line[r] = source[r] * factor
                for r in range(wide, rows):
                    line[r] = pick(factor, 0.0, 0.0)


# ---- masks ------------------------------------------------------------------------------------------------------------
@device_function
def add_mask(mask, query_step, key_step, s, across, along, queries, keys):
    """Writes s[q * across + k * along] += mask[q * query_step + k * key_step]; a query's part of a mask lies together."""
    for q in range(queries):
        row, line = shift(s, q * across), shift(mask, q * query_step)
        if key_step == 0:
            for k in range(keys):
                row[k * along] += line[0]
        else:
            for k in range(keys):
                row[k * along] += line[k * key_step]


@device_function
def drop(s, query_step, key_step, head, first, first_key, queries, keys, shape, key, chance):
    """s times 0 or the factor: word k % 4 of counter ``row * counters + k / 4`` decides on key k of a row of scores.

    Rows are counted from the first of the example, which draws alone, from a key of its own. chance: the probability of
    dropping, and the factor of what is kept.
    """
    limit, kept, none = np.float32(chance[0]), chance[1], pick(chance[1], 0.0, 0.0)
    counters, row, word = shape[9], head % shape[10] * shape[2] + first, head // shape[10] * 2
    for q in range(queries):
        counter = (row + q) * counters + first_key // 4
        for k in range(0, keys, 4):
            words = philox_block(
                np.uint64(key[word]), np.uint64(key[word + 1]), np.uint64(counter + k // 4), np.uint64(0)
            )
            line = shift(s, q * query_step + k * key_step)
            for i in range(min(4, keys - k)):
                u = np.float32(words[i] >> np.uint64(8)) * np.float32(2.0**-24)
                line[i * key_step] *= kept if u > limit else none


def mask_end(mask: Any, origins: Any, shape: Any) -> int:
    """Returns how many elements of a mask all heads, queries and keys reach."""
    last = (shape[2] - 1) * shape[7] + (shape[3] - 1) * shape[8]
    return int(origins[: shape[0]].max() + last) + 1 if mask.size and shape[0] else 0


# What the kernels of both directions reach of the arrays that they share; shape is theirs.
REACHED = {
    "q": lambda shape: int(shape[0] * shape[2] * shape[4]),
    "k": lambda shape: int(shape[0] // shape[1] * shape[3] * shape[4]),
    "v": lambda shape: int(shape[0] // shape[1] * shape[3] * shape[5]),
    "mask": mask_end,
    "origins": lambda shape: int(shape[0]),
    "key": lambda shape: int(shape[0] // shape[10]) * 2 if shape[9] else 0,
    "o": lambda shape: int(shape[0] * shape[2] * shape[5]),
    "lse": lambda shape: int(shape[0] * shape[2]),
}
