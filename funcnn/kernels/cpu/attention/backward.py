"""The gradients of attention by queries, keys and values, from the saved log-sum-exp (arXiv:2205.14135, algorithm 4).

With P = exp(factor * Q K^T + mask - lse) and D the dropout multipliers, for the output's cotangent G:
dV = (P D)^T G, dS = P * (D * (G V^T) - delta), delta = sum(G * O), dQ = factor * dS K, dK = factor * dS^T Q.

A chunk is one key head and a span of its keys; it walks over the group's query heads, blocks of keys and blocks of queries.
Scores lie a row for each query, in panels of keys as wide as the register tile: tiles of ``Q K^T`` and of ``G V^T``, and the
packed right operands of dV^T and dK^T; only for dQ^T is dS transposed. Sums are kept transposed in the worker's scratch, and
written once. Where heads are few the keys are split among chunks, whose dQ are added up in order afterwards: the
splitting depends on the shape alone. Per score 6 e + 4 d flops and one exponential.

``shape`` as in ``forward.py``, then the number of splits and the keys of one, a multiple of BLOCK_POSITIONS.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.attention.blocks import (
    BLOCK_POSITIONS,
    REACHED,
    add_mask,
    drop,
    pack_groups,
    pack_transposed,
    tile_columns,
    tile_rows,
    transpose,
)
from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.machine import tile_shape
from funcnn.kernels.cpu.vector.bits import pick
from funcnn.kernels.cpu.vector.functions import exp
from funcnn.kernels.cpu.vector.instructions import pointer, shift, tile_product

QA, QB, GA, GB, DQ, KT, VT, KB, S, DS, T, DK, DV, DELTA = range(14)  # parts of a worker's scratch


def backward_scratch(queries: int, e: int, d: int, span: int, itemsize: int) -> np.ndarray:
    """Returns where the parts of a worker's scratch begin, and last its size: Q and G packed both ways, dQ^T, a block of K and V
    packed, three blocks of scores, dK^T and dV^T of the span, delta."""
    rows = tile_shape(itemsize)[0]
    long, e8, d8 = -(-queries // BLOCK_POSITIONS) * BLOCK_POSITIONS, -(-e // rows) * rows, -(-d // rows) * rows
    square = BLOCK_POSITIONS * BLOCK_POSITIONS
    sizes = (
        long * e, long * e8, long * d, long * d8, long * e8, BLOCK_POSITIONS * e, BLOCK_POSITIONS * d, BLOCK_POSITIONS * e8, square, square, square,
        span * e8, span * d8, long,
    )  # fmt: skip
    return np.cumsum([0, *(-(-size // 16) * 16 for size in sizes)])


@device_function
def _clear(p, n):
    for i in range(n):
        p[i] = pick(p[i], 0.0, 0.0)


@device_function
def _pack_queries(head, q, g, o, part, shape, places, factor):
    """Q (times the factor) and G packed for both uses, delta, and a dQ^T of zeros."""
    queries, e, d = shape[2], shape[4], shape[5]
    rows, long = tile_rows(part), (queries + BLOCK_POSITIONS - 1) // BLOCK_POSITIONS * BLOCK_POSITIONS
    here, there = pointer(q, head * queries * e), pointer(g, head * queries * d)
    result, delta, one = pointer(o, head * queries * d), shift(part, places[DELTA]), pick(factor, 1.0, 1.0)
    pack_transposed(here, queries, e, shift(part, places[QA]), rows, factor)
    pack_groups(here, queries, e, shift(part, places[QB]), long * rows, factor)
    pack_transposed(there, queries, d, shift(part, places[GA]), rows, one)
    pack_groups(there, queries, d, shift(part, places[GB]), long * rows, one)
    for i in range(queries):
        total = pick(factor, 0.0, 0.0)
        for j in range(i * d, i * d + d):
            total += there[j] * result[j]
        delta[i] = total
    _clear(shift(part, places[DQ]), places[DQ + 1] - places[DQ])


@device_function
def _pack_keys(at, n, k, v, part, shape, places):
    """A block of n keys and values, from number ``at`` of all heads' on."""
    e, d, columns = shape[4], shape[5], tile_columns(part)
    one = k.dtype.type(1)
    pack_transposed(pointer(k, at * e), n, e, shift(part, places[KT]), columns, one)
    pack_transposed(pointer(v, at * d), n, d, shift(part, places[VT]), columns, one)
    pack_groups(pointer(k, at * e), n, e, shift(part, places[KB]), BLOCK_POSITIONS * tile_rows(part), one)


@device_function
def _weights(s, ds, n, ahead, causal, lse, delta):
    """Writes s = exp(s - lse), ds = s * (ds - delta), a panel of n queries; key j comes ``j - ahead - i`` after query i."""
    columns = tile_columns(s)
    for i in range(n):
        row, slope = shift(s, i * columns), shift(ds, i * columns)
        if causal:
            for j in range(columns):
                row[j] = pick(row[j], -np.inf, -np.inf) if j > ahead + i else row[j]
        against, mean = lse[i], delta[i]
        for j in range(columns):
            x = exp(row[j] - against)
            row[j] = x
            slope[j] = x * (slope[j] - mean)


@device_function
def _dropped_weights(s, ds, keep, n, ahead, causal, lse, delta):
    """The same with multipliers ``keep``: ds = p * (keep * ds - delta), s = p * keep."""
    columns = tile_columns(s)
    for i in range(n * columns):
        ds[i] *= keep[i]
    _weights(s, ds, n, ahead, causal, lse, delta)
    for i in range(n * columns):
        s[i] *= keep[i]


@device_function
def _scores(head, first, n, start, keys, mask, origins, key, lse, part, shape, places, chance):
    """Writes S = the dropped weights and DS = dS of a block of n queries and ``keys`` keys."""
    e, d, rows, columns = shape[4], shape[5], tile_rows(part), tile_columns(part)
    qa, ga = shift(part, places[QA] + first * e), shift(part, places[GA] + first * d)
    delta = shift(part, places[DELTA] + first)
    against = pointer(lse, head * shape[2] + first)
    for j in range(0, keys, columns):
        s, ds = shift(part, places[S] + j * BLOCK_POSITIONS), shift(part, places[DS] + j * BLOCK_POSITIONS)
        kt, vt = shift(part, places[KT] + j * e), shift(part, places[VT] + j * d)
        for i in range(0, n, rows):
            tile_product(e, shift(qa, i * e), kt, shift(s, i * columns), columns, False)
            tile_product(d, shift(ga, i * d), vt, shift(ds, i * columns), columns, False)
        wide = min(columns, keys - j)
        if mask.size:
            place = origins[head] + first * shape[7] + (start + j) * shape[8]
            add_mask(pointer(mask, place), shape[7], shape[8], s, columns, 1, n, wide)
        ahead = first - start - j
        if shape[9]:
            keep = shift(part, places[T])
            for i in range(n * columns):
                keep[i] = pick(keep[i], 1.0, 1.0)
            drop(keep, columns, 1, head, first, start + j, n, wide, shape, key, chance)
            _dropped_weights(s, ds, keep, n, ahead, shape[6] != 0, against, delta)
        else:
            _weights(s, ds, n, ahead, shape[6] != 0, against, delta)


@device_function
def _accumulate(first, n, offset, keys, part, shape, places):
    """Adds a block's share to dV^T, dK^T (of the keys ``offset`` into the span) and dQ^T."""
    queries, e, d, rows, columns = shape[2], shape[4], shape[5], tile_rows(part), tile_columns(part)
    long, e8, d8 = (
        (queries + BLOCK_POSITIONS - 1) // BLOCK_POSITIONS * BLOCK_POSITIONS,
        (e + rows - 1) // rows * rows,
        (d + rows - 1) // rows * rows,
    )
    for j in range(0, keys, columns):
        s, ds = shift(part, places[S] + j * BLOCK_POSITIONS), shift(part, places[DS] + j * BLOCK_POSITIONS)
        qb, gb = shift(part, places[QB] + first * rows), shift(part, places[GB] + first * rows)
        dk, dv = shift(part, places[DK] + (offset + j) * e8), shift(part, places[DV] + (offset + j) * d8)
        for i in range(0, d, rows):
            tile_product(n, shift(gb, i * long), s, shift(dv, i * columns), columns, True)
        for i in range(0, e, rows):
            tile_product(n, shift(qb, i * long), ds, shift(dk, i * columns), columns, True)
        for i in range(0, n, columns):
            square = shift(part, places[T] + i * BLOCK_POSITIONS + j * columns)
            transpose(
                shift(ds, i * columns), columns, min(columns, n - i), columns, square, columns, pick(ds[0], 1.0, 1.0)
            )
    for i in range(0, n, columns):
        dq = shift(part, places[DQ] + (first + i) * e8)
        for r in range(0, e, rows):
            t = shift(part, places[T] + i * BLOCK_POSITIONS)
            tile_product(keys, shift(part, places[KB] + r * BLOCK_POSITIONS), t, shift(dq, r * columns), columns, True)


@device_function
def _write(sums, out, n, e, factor):
    """Writes out (n, e) = factor times the panels of its transpose."""
    rows, columns = tile_rows(sums), tile_columns(sums)
    deep = (e + rows - 1) // rows * rows
    for i in range(0, n, columns):
        transpose(shift(sums, i * deep), columns, e, min(columns, n - i), shift(out, i * e), e, factor)


@device_function
def _backward_chunk(chunk, worker, q, k, v, mask, origins, key, o, lse, g, dq, dk, dv, scratch, places, shape, chance):
    group, queries, keys, e, d, splits, span = shape[1], shape[2], shape[3], shape[4], shape[5], shape[11], shape[12]
    part, place, begin = pointer(scratch, worker * places[DELTA + 1]), chunk // splits, chunk % splits * span
    end = min(keys, begin + span)
    own = chunk % splits * (shape[0] * queries * e)  # this split's share of dq
    _clear(shift(part, places[DK]), places[DELTA] - places[DK])
    for head in range(place * group, place * group + group):
        _pack_queries(head, q, g, o, part, shape, places, chance[2])
        for start in range(begin, end, BLOCK_POSITIONS):
            n = min(BLOCK_POSITIONS, end - start)
            _pack_keys(place * keys + start, n, k, v, part, shape, places)
            for first in range(start // BLOCK_POSITIONS * BLOCK_POSITIONS if shape[6] else 0, queries, BLOCK_POSITIONS):
                many = min(BLOCK_POSITIONS, queries - first)
                _scores(head, first, many, start, n, mask, origins, key, lse, part, shape, places, chance)
                _accumulate(first, many, start - begin, n, part, shape, places)
        _write(shift(part, places[DQ]), pointer(dq, own + head * queries * e), queries, e, chance[2])
    one = k.dtype.type(1)
    if begin < end:
        _write(shift(part, places[DK]), pointer(dk, (place * keys + begin) * e), end - begin, e, one)
        _write(shift(part, places[DV]), pointer(dv, (place * keys + begin) * d), end - begin, d, one)


@device_function
def _sum_chunk(chunk, worker, parts, dq, splits, size):
    total, first = pointer(dq, chunk * size), pointer(parts, chunk * size)
    for i in range(size):
        total[i] = first[i]
    for split in range(1, splits):
        part = pointer(parts, split * dq.size + chunk * size)
        for i in range(size):
            total[i] += part[i]


@kernel(
    touches={
        **REACHED,
        "g": lambda shape: int(shape[0] * shape[2] * shape[5]),
        "parts": lambda shape: int(shape[11] * shape[0] * shape[2] * shape[4]),
        "scratch": lambda q, shape, threads: (
            threads * int(backward_scratch(int(shape[2]), int(shape[4]), int(shape[5]), int(shape[12]), q.itemsize)[-1])
        ),
        "places": lambda: DELTA + 2,
        "dq": lambda shape: int(shape[0] * shape[2] * shape[4]),
        "dk": lambda shape: int(shape[0] // shape[1] * shape[3] * shape[4]),
        "dv": lambda shape: int(shape[0] // shape[1] * shape[3] * shape[5]),
    }
)
def attention_backward(
    q, k, v, mask, origins, key, o, lse, g, parts, scratch, places, dq, dk, dv, shape, chance, threads
):
    """dq, dk, dv. ``parts``: a dq for each split of the keys, dq itself where there is only one."""
    chunks = shape[0] // shape[1] * shape[11]
    args = (q, k, v, mask, origins, key, o, lse, g, parts, dk, dv, scratch, places, shape, chance)
    parallel_for(_backward_chunk, chunks, threads, args)
    if shape[11] > 1:
        parallel_for(_sum_chunk, shape[0], threads, (parts, dq, shape[11], dq.size // shape[0]))
