"""Attention, blocked so that the matrix of scores is never whole in memory (Dao et al., arXiv:2205.14135).

Query head ``h`` holds (queries, e), key head ``h // group`` holds keys (keys, e) and values (keys, d). A chunk is one query
head and as many queries as the register tile has columns; it walks over blocks of BLOCK_KEYS keys and keeps, for each query, the
largest score so far and the sum of the exponentials against it (online softmax: Milakov and Gimelshein, arXiv:1805.02867).
The scores lie transposed, a row for each key and a column for each query: so they are tiles of ``K Q^T``, the softmax runs
along vectors without horizontal sums, and as they lie they are the packed right operand of ``V^T P^T``. Keys and values
are packed once before, ``factor * Q`` by each chunk. Per score 2 e + 2 d flops and one exponential; memory: the inputs,
their packed copy and the output.

``shape``: query heads, group, queries, keys, e, d, causal, the mask's strides for queries and keys (0: broadcast), random
counters in a row of scores (0: no dropout), query heads of an example that draws alone. ``mask``, unless empty, is added to the scores; ``origins`` is where each head's
begins. ``chance``: the probability of dropping a weight, the factor for those kept, the factor of the scores.
All arrays are flat. ``lse``: log(sum(exp(scores))), infinite for a query
without keys.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.attention.blocks import (
    REACHED,
    add_mask,
    drop,
    pack_groups,
    pack_transposed,
    tile_columns,
    tile_rows,
)
from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.machine import tile_shape
from funcnn.kernels.cpu.vector.bits import pick
from funcnn.kernels.cpu.vector.functions import exp, log
from funcnn.kernels.cpu.vector.instructions import pointer, shift, tile_product

# Of a block; a multiple of the tile's rows: the longer the sums the better, until the scores leave the cache.
BLOCK_KEYS = 192


def packed_size(keys: int, e: int, d: int, itemsize: int) -> int:
    """Returns how many elements the packed keys and values of one head take."""
    rows = tile_shape(itemsize)[0]
    return -(-keys // rows) * rows * e + -(-d // rows) * rows * keys


def forward_scratch(e: int, d: int, itemsize: int) -> int:
    """Returns how many elements a worker needs: packed queries, scores, output and statistics."""
    rows, columns = tile_shape(itemsize)
    return (e + BLOCK_KEYS + -(-d // rows) * rows + 4) * columns


@device_function
def _pack_chunk(chunk, worker, k, v, packed, shape):
    keys, e, d = shape[3], shape[4], shape[5]
    blocks = (keys + BLOCK_KEYS - 1) // BLOCK_KEYS
    head, start = chunk // blocks, chunk % blocks * BLOCK_KEYS
    n = min(BLOCK_KEYS, keys - start)
    here = pointer(packed, head * (packed.size // (shape[0] // shape[1])))
    rows, one = tile_rows(here), k.dtype.type(1)
    pack_transposed(pointer(k, (head * keys + start) * e), n, e, shift(here, start * e), rows, one)
    values = shift(here, (keys + rows - 1) // rows * rows * e + start * rows)
    pack_groups(pointer(v, (head * keys + start) * d), n, d, values, keys * rows, one)


@device_function
def _softmax_block(s, n, top, base, total, factor):
    """Writes s = exp(s - base) for n keys, base the largest score so far; ``factor`` rescales what was summed before."""
    columns = tile_columns(s)
    zero, low = pick(s[0], 0.0, 0.0), pick(s[0], -np.inf, -np.inf)
    for j in range(columns):
        factor[j] = top[j]
    for i in range(n):
        row = shift(s, i * columns)
        for j in range(columns):
            top[j] = top[j] if top[j] > row[j] else row[j]
    for j in range(columns):  # where all keys are forbidden the exponentials are against 0
        base[j] = zero if top[j] == low else top[j]
        factor[j] = exp(factor[j] - base[j])
        total[j] *= factor[j]
    for i in range(n):
        row = shift(s, i * columns)
        for j in range(columns):
            x = exp(row[j] - base[j])
            row[j] = x
            total[j] += x


@device_function
def _scores(kp, qt, s, start, n, first, count, mask, at, shape):
    """s (keys, columns) for n keys from ``start`` on and ``count`` queries from ``first`` on."""
    rows, columns, e = tile_rows(s), tile_columns(s), shape[4]
    for i in range(0, n, rows):
        tile_product(e, shift(kp, (start + i) * e), qt, shift(s, i * columns), columns, False)
    if mask.size:
        place = at + start * shape[8] + first * shape[7]
        add_mask(pointer(mask, place), shape[7], shape[8], s, 1, columns, count, n)
    if shape[6] and start + n - 1 > first:
        for i in range(n):
            row = shift(s, i * columns)
            for j in range(columns):
                row[j] = pick(row[j], -np.inf, -np.inf) if start + i > first + j else row[j]


@device_function
def _write(o, out, n, d, base, total, lse, kept):
    """Writes out (queries, d) = o / total transposed, and the logarithm of the sum of exponentials."""
    columns = tile_columns(o)
    zero, one = pick(o[0], 0.0, 0.0), pick(o[0], 1.0, 1.0)
    for j in range(n):
        empty = total[j] == zero
        share = zero if empty else one / total[j]
        line, column = shift(out, j * d), shift(o, j)
        for e in range(d):
            line[e] = column[e * columns] * share
        if kept:
            lse[j] = pick(share, np.inf, np.inf) if empty else base[j] + log(total[j])


@device_function
def _forward_chunk(chunk, worker, q, packed, mask, origins, key, o, lse, kept, scratch, shape, chance):
    queries, keys, e, d = shape[2], shape[3], shape[4], shape[5]
    rows, columns = tile_rows(q), tile_columns(q)
    panels = (queries + columns - 1) // columns
    head, first = chunk // panels, chunk % panels * columns
    count, deep = min(columns, queries - first), (d + rows - 1) // rows * rows
    qt = pointer(scratch, worker * ((e + BLOCK_KEYS + deep + 4) * columns))
    kp = pointer(packed, head // shape[1] * (packed.size // (shape[0] // shape[1])))
    vp = shift(kp, (keys + rows - 1) // rows * rows * e)
    s = shift(qt, e * columns)
    sums = shift(s, BLOCK_KEYS * columns)
    top, base = shift(sums, deep * columns), shift(sums, (deep + 1) * columns)
    total, factor = shift(sums, (deep + 2) * columns), shift(sums, (deep + 3) * columns)
    pack_transposed(pointer(q, (head * queries + first) * e), count, e, qt, columns, chance[2])
    for j in range(columns):
        top[j], total[j] = pick(top[j], -np.inf, -np.inf), pick(top[j], 0.0, 0.0)
    for start in range(0, min(keys, first + count) if shape[6] else keys, BLOCK_KEYS):
        n = min(BLOCK_KEYS, keys - start)
        _scores(kp, qt, s, start, n, first, count, mask, origins[head], shape)
        _softmax_block(s, n, top, base, total, factor)
        if shape[9]:
            drop(s, 1, columns, head, first, start, count, n, shape, key, chance)
        if start:
            for i in range(d):
                row = shift(sums, i * columns)
                for j in range(columns):
                    row[j] *= factor[j]
        for i in range(0, d, rows):
            tile_product(n, shift(vp, i * keys + start * rows), s, shift(sums, i * columns), columns, start > 0)
    at = head * queries + first
    _write(sums, pointer(o, at * d), count, d, base, total, pointer(lse, at), kept)


@kernel(
    touches={
        **REACHED,
        "lse": lambda shape, kept: kept * int(shape[0] * shape[2]),
        "packed": lambda q, shape: (
            int(shape[0] // shape[1]) * packed_size(int(shape[3]), int(shape[4]), int(shape[5]), q.itemsize)
        ),
        "scratch": lambda q, shape, threads: threads * forward_scratch(int(shape[4]), int(shape[5]), q.itemsize),
    }
)
def attention_forward(q, k, v, mask, origins, key, packed, scratch, o, lse, kept, shape, chance, threads):
    """Writes o = softmax(factor * Q K^T + mask) V, and lse if it is ``kept``."""
    columns, heads = tile_columns(q), shape[0]
    blocks = heads // shape[1] * ((shape[3] + BLOCK_KEYS - 1) // BLOCK_KEYS)
    parallel_for(_pack_chunk, blocks, threads, (k, v, packed, shape))
    chunks = heads * ((shape[2] + columns - 1) // columns)
    args = (q, packed, mask, origins, key, o, lse, kept, scratch, shape, chance)
    parallel_for(_forward_chunk, chunks, threads, args)
