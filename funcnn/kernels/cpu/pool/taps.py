"""What pooling does with rows that are split by phase (``rows.py``): sums and maxima over taps, ``GROUP_VECTORS`` vectors at a
time, in registers from the first tap to the last."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.pool.rows import GROUP_VECTORS, WindowRow


# ---- sums -------------------------------------------------------------------------------------------------------------
def _sums_twin(source: Any, offsets: Any, taps: int, count: int) -> Any:
    return sum((source[offsets[t] : offsets[t] + count] for t in range(taps)), np.zeros(count, source.dtype))


def _means_twin(source: Any, offsets: Any, taps: int, count: int, divisor: Any, across: Any, out: Any) -> None:
    out[:count] = _sums_twin(source, offsets, taps, count) / (divisor * across[:count])


@intrinsic(twin=_means_twin)
def window_means(
    typingctx: Any, source: Any, offsets: Any, taps: Any, count: Any, divisor: Any, across: Any, out: Any
) -> Any:
    """Computes out[q] = the sum of source[offsets[t] + q] over the taps, divided by ``divisor * across[q]``."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, number, size, dividing, factors, place = values
        rows = WindowRow.of(context, builder, source)
        outer = rows.splat(dividing)
        with rows.groups(size, GROUP_VECTORS) as starts:
            for k, total in zip(starts, rows.sums(start, table, number, starts), strict=True):
                rows.put(builder.fdiv(total, builder.fmul(outer, rows.at(factors, k))), place, k)
        return context.get_dummy_value()

    return types.void(source, offsets, types.intp, types.intp, source.dtype, across, out), codegen


def _totals_twin(source: Any, offsets: Any, taps: int, count: int, out: Any) -> None:
    out[:count] = _sums_twin(source, offsets, taps, count)


@intrinsic(twin=_totals_twin)
def totals(typingctx: Any, source: Any, offsets: Any, taps: Any, count: Any, out: Any) -> Any:
    """Computes out[u] = the sum of source[offsets[t] + u] over the taps."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, number, size, place = values
        rows = WindowRow.of(context, builder, source)
        with rows.groups(size, GROUP_VECTORS) as starts:
            for k, total in zip(starts, rows.sums(start, table, number, starts), strict=True):
                rows.put(total, place, k)
        return context.get_dummy_value()

    return types.void(source, offsets, types.intp, types.intp, out), codegen


def _pairs_twin(source: Any, even: Any, evens: int, odd: Any, odds: int, count: int, out: Any) -> None:
    for e, offsets, taps in ((0, even, evens), (1, odd, odds)):
        out[e : 2 * count : 2] = _sums_twin(source, offsets, taps, count)


@intrinsic(twin=_pairs_twin)
def paired_totals(typingctx: Any, source: Any, even: Any, evens: Any, odd: Any, odds: Any, count: Any, out: Any) -> Any:
    """Computes out[2 u] and out[2 u + 1] = ``totals`` with the offsets ``even`` and ``odd``, for ``count`` elements u."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, size, place = values[0], values[5], values[6]
        rows = WindowRow.of(context, builder, source)
        with rows.groups(size, GROUP_VECTORS) as starts:
            sums = [rows.sums(start, table, number, starts) for table, number in (values[1:3], values[3:5])]
            for k, even_sum, odd_sum in zip(starts, *sums, strict=True):
                first = builder.shl(k, rows.word(1))
                for v, vector in enumerate(rows.interleaved(even_sum, odd_sum)):
                    rows.put(vector, place, builder.add(first, rows.word(v * rows.lanes)))
        return context.get_dummy_value()

    return types.void(source, even, types.intp, odd, types.intp, types.intp, out), codegen


def _scaled_twin(row: Any, factors: Any, count: int) -> None:
    row[:count] *= factors[:count]


@intrinsic(twin=_scaled_twin)
def scale_row(typingctx: Any, row: Any, factors: Any, count: Any) -> Any:
    """Computes ``row[:count] *= factors[:count]``."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        rows = WindowRow.of(context, builder, row)
        with rows.groups(values[2], 1) as (k,):
            rows.put(builder.fmul(rows.at(values[0], k), rows.at(values[1], k)), values[0], k)
        return context.get_dummy_value()

    return types.void(row, factors, types.intp), codegen


# ---- maxima -----------------------------------------------------------------------------------------------------------
def _maxima_twin(
    source: Any,
    offsets: Any,
    marks: Any,
    taps: int,
    count: int,
    step: int,
    firsts: Any,
    top: int,
    base: int,
    best: Any,
    where: Any,
) -> None:
    places = base + step * np.arange(count)
    value = np.full(count, -np.inf, source.dtype)
    place = np.where(firsts[:count] < 0, -1, firsts[:count] + top)
    for t in range(taps):
        new = source[offsets[t] : offsets[t] + count]
        take = new > value
        value, place = np.where(take, new, value), np.where(take, marks[t] + places, place)
    best[:count], where[:count] = value, place


@intrinsic(twin=_maxima_twin)
def window_maxima(
    typingctx: Any, source: Any, offsets: Any, marks: Any, taps: Any, count: Any, step: Any, firsts: Any, top: Any,
    base: Any, best: Any, where: Any,
) -> Any:  # fmt: skip
    """Computes best[q] = the first largest of source[offsets[t] + q], no NaN among them, where[q] = marks[t] + base + step q for that
    tap; where none is above -infinity, firsts[q] + top, or -1 where firsts[q] is -1."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        from llvmlite import ir

        start, table, numbers, count, size, apart, first, above, corner, best_at, where_at = values
        rows, kind = WindowRow.of(context, builder, source), ir.IntType(where.dtype.bitwidth)
        low, none, zero = rows.same(float("-inf")), rows.same(-1, kind), rows.same(0, kind)
        steps = builder.mul(rows.integer(apart, kind), rows.counted(rows.word(0), kind))

        def begin(k: Any, shift: Any) -> Any:
            column = rows.at(first, k, kind=kind)
            known = builder.add(column, rows.integer(above, kind))
            place = builder.select(builder.icmp_signed("<", column, zero), none, known)
            return builder.sub(place, shift)

        with rows.groups(size, GROUP_VECTORS) as starts:
            moved = [builder.add(corner, builder.mul(apart, k)) for k in starts]
            shifts = [builder.add(rows.integer(number, kind), steps) for number in moved]

            def advance(t: Any, state: list) -> list:
                offset, number = (builder.load(builder.gep(array, [t])) for array in (table, numbers))
                mark, out = rows.integer(number, kind), []
                for k, value, place in zip(starts, state[:GROUP_VECTORS], state[GROUP_VECTORS:], strict=True):
                    new = rows.at(start, offset, k)
                    take = builder.fcmp_ordered(">", new, value)
                    out.append((builder.select(take, new, value), builder.select(take, mark, place)))
                return [*(value for value, _ in out), *(place for _, place in out)]

            before = [low] * GROUP_VECTORS + [begin(k, shift) for k, shift in zip(starts, shifts, strict=True)]
            state = rows.loop(count, before, advance)
            for v, k in enumerate(starts):
                rows.put(state[v], best_at, k)
                rows.put(builder.add(state[GROUP_VECTORS + v], shifts[v]), where_at, k)
        return context.get_dummy_value()

    return types.void(
        source, offsets, marks, types.intp, types.intp, types.intp, firsts, types.intp, types.intp, best, where
    ), codegen


def _peaks_twin(source: Any, offsets: Any, taps: int, count: int, out: Any) -> None:
    out[:count] = np.max([source[offsets[t] : offsets[t] + count] for t in range(taps)], 0)


@intrinsic(twin=_peaks_twin)
def window_peaks(typingctx: Any, source: Any, offsets: Any, taps: Any, count: Any, out: Any) -> Any:
    """Computes out[q] = the largest of source[offsets[t] + q], no NaN among them."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, number, size, place = values
        rows = WindowRow.of(context, builder, source)
        low = rows.same(float("-inf"))

        with rows.groups(size, GROUP_VECTORS) as starts:

            def advance(t: Any, state: list) -> list:
                offset = builder.load(builder.gep(table, [t]))
                news = [rows.at(start, offset, k) for k in starts]
                takes = [builder.fcmp_ordered(">", new, value) for new, value in zip(news, state, strict=True)]
                return [builder.select(*chosen) for chosen in zip(takes, news, state, strict=True)]

            for k, value in zip(starts, rows.loop(number, [low] * GROUP_VECTORS, advance), strict=True):
                rows.put(value, place, k)
        return context.get_dummy_value()

    return types.void(source, offsets, types.intp, types.intp, out), codegen
