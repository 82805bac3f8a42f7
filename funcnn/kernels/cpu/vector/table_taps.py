"""Sums and maxima of numbers that lie anywhere, as tables say: windows of small planes, columns of interpolated rows.

A table is tap-major: tap t of output q is ``source[index[t * pitch + q]]``, with 32-bit places. ``pitch`` is a whole number of
vectors (``WIDE``), so what stands beyond the last output is read, and must name a number that is there. An absent tap has
the sign bit set, ``ABSENT``, and the place beside that bit is a number that may be read.

The numbers of a vector are loaded one by one into its lanes, about one a cycle, on any CPU and without gather instructions;
sums, comparisons and places are whole vectors, for rows of any length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.lanes import over_taps
from funcnn.kernels.cpu.vector.rows import Row

ABSENT = -(1 << 31)  # of a tap that is not there, and place 0
PLACE = (1 << 31) - 1  # the bits of a place
WIDE = 16  # outputs: a row of a table is a multiple of it, of any vector that CPUs have


class TableRow(Row):
    """The IR of loops over rows of a table."""

    def __init__(self, context: Any, builder: Any, pointer: Any):
        super().__init__(builder, context.get_data_type(pointer.dtype), pointer.dtype.bitwidth // 8)
        self.places = self.ir.VectorType(self.ir.IntType(32), self.lanes)

    def at(self, row: Any, place: Any, kind: Any = None) -> Any:
        """The vector of a kind that begins at a place of an array."""
        kind = kind or self.vector
        start = self.builder.bitcast(self.builder.gep(row, [place]), kind.as_pointer())
        return self.builder.load(start, align=kind.element.width // 8 if kind is self.places else self.size)

    def tap(self, source: Any, index: Any, place: Any) -> tuple:
        """The numbers that a vector of the table names, and the table's own numbers."""
        builder, lane = self.builder, self.ir.IntType(32)
        row, value = builder.gep(index, [place]), self.ir.Constant(self.vector, self.ir.Undefined)
        for q in range(self.lanes):
            number = builder.and_(builder.load(builder.gep(row, [self.word(q)])), lane(PLACE))
            one = builder.load(builder.gep(source, [builder.zext(number, self.word)]))
            value = builder.insert_element(value, one, lane(q))
        return value, self.at(index, place, self.places)

    def taps(self, taps: Any, pitch: Any, k: Any, before: list, turn: Callable) -> list:
        """``state = turn(state, place in the table)`` over the taps of the outputs from k on."""
        builder = self.builder
        return over_taps(builder, taps, before, lambda t, s: turn(s, builder.add(builder.mul(t, pitch), k)))

    def there(self, index: Any) -> Any:
        """The lanes whose taps are not absent."""
        return self.builder.icmp_signed(">=", index, self.ir.Constant(self.places, [0] * self.lanes))

    def put(self, value: Any, row: Any, place: Any, mask: Any) -> None:
        """Write some lanes of a vector of any kind."""
        kind = value.type.element
        size = kind.width // 8 if isinstance(kind, self.ir.IntType) else self.size
        letter = "i" if isinstance(kind, self.ir.IntType) else "f"
        to = self.builder.bitcast(self.builder.gep(row, [place]), value.type.as_pointer())
        self._masked_as(f"store.v{self.lanes}{letter}{8 * size}", [value, to, self.ir.IntType(32)(size), mask])

    def _masked_as(self, name: str, arguments: list) -> None:
        from numba.core import cgutils

        kind = self.ir.FunctionType(self.ir.VoidType(), [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.masked.{name}.p0")
        self.builder.call(function, arguments)

    def same(self, number: float) -> Any:
        """A vector of one number."""
        return self.ir.Constant(self.vector, [number] * self.lanes)


def _listed(source: Any, index: Any, taps: int, pitch: int, count: int) -> tuple:
    """Numbers (taps, count), and which are there."""
    places = np.asarray(index[: taps * pitch]).reshape(taps, pitch)[:, :count]
    return source[places & PLACE], places >= 0


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
    """out[q] = the sum of weight[t * pitch + q] source[index[t * pitch + q]] over the taps, for ``count`` outputs."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, factors, number, apart, size, target = values
        rows = TableRow(context, builder, source)
        with rows._steps(size) as k:

            def turn(state: list, place: Any) -> list:
                value, listed = rows.tap(start, table, place)
                new = builder.call(rows.fma, [rows.at(factors, place), value, state[0]])
                return [builder.select(rows.there(listed), new, state[0])]

            (total,) = rows.taps(number, apart, k, [rows.same(0.0)], turn)
            rows.put(total, target, k, rows._below(builder.sub(size, k)))
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
    """out[q] = the sum of source[index[t * pitch + q]] over the taps, divided by divisors[q], for ``count`` outputs."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, parts, number, apart, size, target = values
        rows = TableRow(context, builder, source)
        with rows._steps(size) as k:

            def turn(state: list, place: Any) -> list:
                value, listed = rows.tap(start, table, place)
                return [builder.select(rows.there(listed), builder.fadd(state[0], value), state[0])]

            (total,) = rows.taps(number, apart, k, [rows.same(0.0)], turn)
            rows.put(builder.fdiv(total, rows.at(parts, k)), target, k, rows._below(builder.sub(size, k)))
        return context.get_dummy_value()

    return types.void(source, index, divisors, types.intp, types.intp, types.intp, out), codegen


def _rows_twin(source: Any, places: Any, weights: Any, taps: int, step: int, count: int, out: Any) -> None:
    total = np.zeros(count, source.dtype)
    for t in range(taps):
        if places[t * step] >= 0:
            total = total + weights[t * step] * source[places[t * step] : places[t * step] + count]
    out[:count] = total


@intrinsic(twin=_rows_twin)
def weighted_rows(
    typingctx: Any, source: Any, places: Any, weights: Any, taps: Any, step: Any, count: Any, out: Any
) -> Any:
    """out = the sum of weights[t * step] times the ``count`` numbers from source[places[t * step]] on; a place below 0 is an
    absent tap. 64-bit places."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, factors, number, apart, size, target = values
        rows = TableRow(context, builder, source)
        none = rows.word(0)
        whole = builder.and_(size, rows.word(-rows.lanes))

        def total(k: Any, load: Callable) -> Any:
            def turn(t: Any, state: list) -> list:
                at = builder.mul(t, apart)
                place = builder.load(builder.gep(table, [at]))
                there = builder.icmp_signed(">=", place, none)
                row = builder.gep(builder.gep(start, [builder.select(there, place, none)]), [k])
                factor = rows._splat(builder.load(builder.gep(factors, [at])))
                return [builder.select(there, builder.call(rows.fma, [factor, load(row), state[0]]), state[0])]

            return over_taps(builder, number, [rows.same(0.0)], turn)[0]

        with rows._steps(whole) as k:
            value = total(k, lambda row: rows._load(row, 0))
            builder.store(value, rows._address(builder.gep(target, [k]), 0), align=rows.size)
        with builder.if_then(builder.icmp_signed("<", whole, size)):
            mask = rows._below(builder.sub(size, whole))
            rows.put(total(whole, lambda row: rows._masked_load(row, mask)), target, whole, mask)
        return context.get_dummy_value()

    return types.void(source, places, weights, types.intp, types.intp, types.intp, out), codegen


# ---- maxima -----------------------------------------------------------------------------------------------------------
def _peak_twin(source: Any, index: Any, taps: int, pitch: int, count: int, best: Any) -> None:
    best[:count] = np.max(_listed(source, index, taps, pitch, count)[0], 0)


@intrinsic(twin=_peak_twin)
def peak_taps(typingctx: Any, source: Any, index: Any, taps: Any, pitch: Any, count: Any, best: Any) -> Any:
    """best[q] = the largest of source[index[t * pitch + q]], NaN if one is; no tap is absent."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, number, apart, size, target = values
        rows = TableRow(context, builder, source)
        with rows._steps(size) as k:

            def turn(state: list, place: Any) -> list:
                new, _ = rows.tap(start, table, place)
                return [builder.select(_wins(builder, new, state[0]), new, state[0])]

            (value,) = rows.taps(number, apart, k, [rows.same(float("-inf"))], turn)
            rows.put(value, target, k, rows._below(builder.sub(size, k)))
        return context.get_dummy_value()

    return types.void(source, index, types.intp, types.intp, types.intp, best), codegen


def _wins(builder: Any, new: Any, value: Any) -> Any:
    """The first largest stays, the last NaN."""
    return builder.or_(builder.fcmp_ordered(">", new, value), builder.fcmp_unordered("uno", new, new))


def _place_twin(source: Any, index: Any, bases: Any, taps: int, pitch: int, count: int, best: Any, where: Any) -> None:
    value, place = np.full(count, -np.inf, source.dtype), np.asarray(index[:count])
    for t, new in enumerate(_listed(source, index, taps, pitch, count)[0]):
        take = (new > value) | np.isnan(new)
        value, place = np.where(take, new, value), np.where(take, index[t * pitch : t * pitch + count], place)
    best[:count], where[:count] = value, place - bases[:count]


@intrinsic(twin=_place_twin)
def place_taps(
    typingctx: Any, source: Any, index: Any, bases: Any, taps: Any, pitch: Any, count: Any, best: Any, where: Any
) -> Any:
    """``peak_taps``, and where[q] = the place of the largest (of equals the first, of NaN the last) less bases[q]."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, table, corners, number, apart, size, best_at, where_at = values
        rows, kind = TableRow(context, builder, source), context.get_data_type(where.dtype)
        with rows._steps(size) as k:

            def turn(state: list, place: Any) -> list:
                new, listed = rows.tap(start, table, place)
                take = _wins(builder, new, state[0])
                return [builder.select(take, new, state[0]), builder.select(take, listed, state[1])]

            first = [rows.same(float("-inf")), rows.at(table, k, rows.places)]
            value, place = rows.taps(number, apart, k, first, turn)
            inside, mask = builder.sub(place, rows.at(corners, k, rows.places)), rows._below(builder.sub(size, k))
            if kind.width > 32:
                inside = builder.sext(inside, rows.ir.VectorType(kind, rows.lanes))
            rows.put(value, best_at, k, mask)
            rows.put(inside, where_at, k, mask)
        return context.get_dummy_value()

    return types.void(source, index, bases, types.intp, types.intp, types.intp, best, where), codegen
