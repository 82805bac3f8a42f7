"""Sums and maxima of elements anywhere in memory, as tables say: windows of small planes, columns of interpolated rows.

A table is tap-major: tap t of output q is ``source[index[t * pitch + q]]``, with 32-bit offsets. ``pitch`` is a whole number of
vectors (``PITCH_MULTIPLE``), so entries beyond the last output are read, and must name an element that exists. An absent tap
has the sign bit set, ``ABSENT``, and the offset beside that bit is one that may be read.

The elements of a vector are loaded one by one into its lanes, about one a cycle, on any CPU and without gather instructions;
sums, comparisons and offsets are whole vectors, for rows of any length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.writer import Writer

ABSENT = -(1 << 31)  # the sign bit, of a tap that is absent
OFFSET_BITS = (1 << 31) - 1
PITCH_MULTIPLE = 16  # outputs, of which a row of a table has a multiple: the longest vector that CPUs have


class TableRow(Writer):
    """Writes loops over rows of a table."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.entry = self.ir.IntType(32)  # of a table

    def tap(self, source: Any, index: Any, at: Any) -> tuple:
        """Returns the elements that a vector of the table names, and the table's own entries."""
        builder = self.builder
        row, value = builder.gep(index, [at]), self.constant(self.ir.Undefined)
        for q in range(self.lanes):
            offset = builder.and_(builder.load(builder.gep(row, [self.word(q)])), self.entry(OFFSET_BITS))
            one = builder.load(builder.gep(source, [builder.zext(offset, self.word)]))
            value = builder.insert_element(value, one, self.entry(q))
        return value, self.at(index, at, kind=self.entry)

    def taps(self, taps: Any, pitch: Any, k: Any, before: list, advance: Callable) -> list:
        """Computes ``state = advance(state, offset in the table)`` over the taps of the outputs from k on."""
        builder = self.builder
        return self.loop(taps, before, lambda t, state: advance(state, builder.add(builder.mul(t, pitch), k)))

    def there(self, entries: Any) -> Any:
        """Returns the lanes whose taps are not absent."""
        return self.builder.icmp_signed(">=", entries, self.same(0, self.entry))


def _listed(source: Any, index: Any, taps: int, pitch: int, count: int) -> tuple:
    """Returns the elements (taps, count), and which taps are not absent."""
    entries = np.asarray(index[: taps * pitch]).reshape(taps, pitch)[:, :count]
    return source[entries & OFFSET_BITS], entries >= 0


# ---- sums -------------------------------------------------------------------------------------------------------------
def _weighted_twin(source: Any, index: Any, weight: Any, taps: int, pitch: int, count: int, out: Any) -> None:
    total = np.zeros(count, source.dtype)
    for t, (numbers, there) in enumerate(zip(*_listed(source, index, taps, pitch, count), strict=True)):
        total = np.where(there, total + weight[t * pitch : t * pitch + count] * numbers, total)
    out[:count] = total


@intrinsic(twin=_weighted_twin)
def weighted_taps(
    typingctx: Any, source: Any, index: Any, weight: Any, taps: Any, pitch: Any, count: Any, out: Any
) -> Any:
    """Computes out[q] = the sum of weight[t * pitch + q] source[index[t * pitch + q]] over the taps, for ``count`` outputs."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, factors, number, apart, size, target = values
        rows = TableRow.of(context, builder, source)
        with rows.steps(size) as k:

            def advance(state: list, at: Any) -> list:
                value, listed = rows.tap(start, table, at)
                new = builder.call(rows.fma, [rows.at(factors, at), value, state[0]])
                return [builder.select(rows.there(listed), new, state[0])]

            (total,) = rows.taps(number, apart, k, [rows.same(0.0)], advance)
            rows.put(total, target, k, rows.below(builder.sub(size, k)))
        return context.get_dummy_value()

    return types.void(source, index, weight, types.intp, types.intp, types.intp, out), codegen


def _mean_twin(source: Any, index: Any, divisors: Any, taps: int, pitch: int, count: int, out: Any) -> None:
    total = np.zeros(count, source.dtype)
    for numbers, there in zip(*_listed(source, index, taps, pitch, count), strict=True):
        total = np.where(there, total + numbers, total)
    out[:count] = total / divisors[:count]


@intrinsic(twin=_mean_twin)
def mean_taps(
    typingctx: Any, source: Any, index: Any, divisors: Any, taps: Any, pitch: Any, count: Any, out: Any
) -> Any:
    """Computes out[q] = the sum of source[index[t * pitch + q]] over the taps, divided by divisors[q], for ``count`` outputs."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, parts, number, apart, size, target = values
        rows = TableRow.of(context, builder, source)
        with rows.steps(size) as k:

            def advance(state: list, at: Any) -> list:
                value, listed = rows.tap(start, table, at)
                return [builder.select(rows.there(listed), builder.fadd(state[0], value), state[0])]

            (total,) = rows.taps(number, apart, k, [rows.same(0.0)], advance)
            rows.put(builder.fdiv(total, rows.at(parts, k)), target, k, rows.below(builder.sub(size, k)))
        return context.get_dummy_value()

    return types.void(source, index, divisors, types.intp, types.intp, types.intp, out), codegen


def _rows_twin(source: Any, offsets: Any, weights: Any, taps: int, step: int, count: int, out: Any) -> None:
    total = np.zeros(count, source.dtype)
    for t in range(taps):
        if offsets[t * step] >= 0:
            total = total + weights[t * step] * source[offsets[t * step] : offsets[t * step] + count]
    out[:count] = total


@intrinsic(twin=_rows_twin)
def weighted_rows(
    typingctx: Any, source: Any, offsets: Any, weights: Any, taps: Any, step: Any, count: Any, out: Any
) -> Any:
    """Computes out = the sum of weights[t * step] times the ``count`` elements from source[offsets[t * step]] on; an offset below 0 is an
    absent tap. 64-bit offsets."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, factors, number, apart, size, target = values
        rows = TableRow.of(context, builder, source)
        none = rows.word(0)
        whole = builder.and_(size, rows.word(-rows.lanes))

        def total(k: Any, load: Callable) -> Any:
            def advance(t: Any, state: list) -> list:
                at = builder.mul(t, apart)
                offset = builder.load(builder.gep(table, [at]))
                there = builder.icmp_signed(">=", offset, none)
                row = builder.gep(builder.gep(start, [builder.select(there, offset, none)]), [k])
                factor = rows.splat(builder.load(builder.gep(factors, [at])))
                return [builder.select(there, builder.call(rows.fma, [factor, load(row), state[0]]), state[0])]

            return rows.loop(number, [rows.same(0.0)], advance)[0]

        with rows.steps(whole) as k:
            value = total(k, lambda row: rows.load(row))
            rows.store(value, builder.gep(target, [k]))
        with builder.if_then(builder.icmp_signed("<", whole, size)):
            mask = rows.below(builder.sub(size, whole))
            rows.put(total(whole, lambda row: rows.masked_load(row, mask)), target, whole, mask)
        return context.get_dummy_value()

    return types.void(source, offsets, weights, types.intp, types.intp, types.intp, out), codegen


# ---- maxima -----------------------------------------------------------------------------------------------------------
def _peak_twin(source: Any, index: Any, taps: int, pitch: int, count: int, best: Any) -> None:
    best[:count] = np.max(_listed(source, index, taps, pitch, count)[0], 0)


@intrinsic(twin=_peak_twin)
def peak_taps(typingctx: Any, source: Any, index: Any, taps: Any, pitch: Any, count: Any, best: Any) -> Any:
    """Computes best[q] = the largest of source[index[t * pitch + q]], NaN if one is; no tap is absent."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, number, apart, size, target = values
        rows = TableRow.of(context, builder, source)
        with rows.steps(size) as k:

            def advance(state: list, at: Any) -> list:
                new, _ = rows.tap(start, table, at)
                return [builder.select(_wins(builder, new, state[0]), new, state[0])]

            (value,) = rows.taps(number, apart, k, [rows.same(float("-inf"))], advance)
            rows.put(value, target, k, rows.below(builder.sub(size, k)))
        return context.get_dummy_value()

    return types.void(source, index, types.intp, types.intp, types.intp, best), codegen


def _wins(builder: Any, new: Any, value: Any) -> Any:
    """Returns the first largest stays, the last NaN."""
    return builder.or_(builder.fcmp_ordered(">", new, value), builder.fcmp_unordered("uno", new, new))


def _place_twin(source: Any, index: Any, bases: Any, taps: int, pitch: int, count: int, best: Any, argmax: Any) -> None:
    value, entry = np.full(count, -np.inf, source.dtype), np.asarray(index[:count])
    for t, new in enumerate(_listed(source, index, taps, pitch, count)[0]):
        take = (new > value) | np.isnan(new)
        value, entry = np.where(take, new, value), np.where(take, index[t * pitch : t * pitch + count], entry)
    best[:count], argmax[:count] = value, entry - bases[:count]


@intrinsic(twin=_place_twin)
def place_taps(
    typingctx: Any, source: Any, index: Any, bases: Any, taps: Any, pitch: Any, count: Any, best: Any, argmax: Any
) -> Any:
    """``peak_taps``, and argmax[q] = the offset of the largest (of equals the first, of NaN the last) less bases[q]."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, corners, number, apart, size, best_at, found = values
        rows, kind = TableRow.of(context, builder, source), context.get_data_type(argmax.dtype)
        with rows.steps(size) as k:

            def advance(state: list, at: Any) -> list:
                new, listed = rows.tap(start, table, at)
                take = _wins(builder, new, state[0])
                return [builder.select(take, new, state[0]), builder.select(take, listed, state[1])]

            first = [rows.same(float("-inf")), rows.at(table, k, kind=rows.entry)]
            value, entry = rows.taps(number, apart, k, first, advance)
            inside, mask = builder.sub(entry, rows.at(corners, k, kind=rows.entry)), rows.below(builder.sub(size, k))
            if kind.width > 32:
                inside = builder.sext(inside, rows.ir.VectorType(kind, rows.lanes))
            rows.put(value, best_at, k, mask)
            rows.put(inside, found, k, mask)
        return context.get_dummy_value()

    return types.void(source, index, bases, types.intp, types.intp, types.intp, best, argmax), codegen
