"""Vector instructions for windows: many neighbouring windows at once, their columns 1 or 2 apart, held in registers.

LLVM's vectoriser does not vectorise the loop over windows outside the loop over taps, and leaves rows shorter than 64 to a
scalar remainder. Here one call takes ``LANES`` windows through all their taps, or ``FEW`` of them; LLVM fits that to the
registers of the CPU. A row whose length is no multiple ends in a block that overlaps the one before it, with equal results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.compile import intrinsic

LANES, FEW = 16, 4


class Rows:
    """Loads and loops of vectors of ``lanes`` numbers, ``step`` apart."""

    def __init__(self, context: Any, builder: Any, pointer: Any, lanes: int, step: int):
        from llvmlite import ir

        self.ir, self.builder, self.lanes, self.step = ir, builder, lanes, step
        self.size = pointer.dtype.bitwidth // 8
        self.vector = ir.VectorType(context.get_data_type(pointer.dtype), lanes)
        self.word = ir.IntType(64)

    def load(self, source: Any) -> Any:
        """source[0], source[step], ...; for step 2 two overlapping loads, which do not read beyond the last number."""
        if self.step == 1:
            return self._load(source, 0)
        even = [2 * q if 2 * q < self.lanes else 2 * q + 1 for q in range(self.lanes)]
        low, high = self._load(source, 0), self._load(source, self.lanes - 1)
        return self.builder.shuffle_vector(low, high, self._constant(self.ir.IntType(32), even))

    def _load(self, source: Any, offset: int) -> Any:
        place = self.builder.gep(source, [self.word(offset)])
        return self.builder.load(self.builder.bitcast(place, self.vector.as_pointer()), align=self.size)

    def _constant(self, kind: Any, values: list) -> Any:
        return self.ir.Constant(self.ir.VectorType(kind, self.lanes), values)

    def store(self, value: Any, place: Any, size: int) -> None:
        """place[0], place[1], ... = value."""
        self.builder.store(value, self.builder.bitcast(place, value.type.as_pointer()), align=size)

    def splat(self, number: Any) -> Any:
        """A number in all lanes."""
        blank = self._constant(number.type, self.ir.Undefined)
        single = self.builder.insert_element(blank, number, self.ir.IntType(32)(0))
        return self.builder.shuffle_vector(single, blank, self._constant(self.ir.IntType(32), [0] * self.lanes))

    def integer(self, number: Any, kind: Any) -> Any:
        """A 64-bit integer, cut to ``kind``, in all lanes."""
        return self.splat(self.builder.trunc(number, kind) if kind.width < 64 else number)

    def places(self, first: Any, kind: Any) -> Any:
        """first, first + step, ... as integers of ``kind``."""
        return self.builder.add(
            self.integer(first, kind), self._constant(kind, [self.step * q for q in range(self.lanes)])
        )

    def over_taps(self, offsets: Any, taps: Any, before: list, turn: Callable) -> list:
        """``state = turn(offsets[t], state)`` for t in range(taps), taps > 0, with the state in registers."""
        builder, entry = self.builder, self.builder.block
        loop, after = builder.append_basic_block("taps"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        t = builder.phi(self.word)
        state = [builder.phi(value.type) for value in before]
        new = turn(builder.load(builder.gep(offsets, [t])), state)
        following = builder.add(t, self.word(1))
        for phi, first, value in zip([t, *state], [self.word(0), *before], [following, *new], strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, taps), loop, after)
        builder.position_at_end(after)
        return new

    def filled(self, number: float) -> Any:
        """The same number in all lanes."""
        return self.ir.Constant(self.vector, [number] * self.lanes)


def _largest(lanes: int, step: int) -> Any:
    def twin(image: Any, offsets: Any, taps: int, column: int, best: Any, where: Any) -> None:
        places = column * step + step * np.arange(lanes)
        best[:lanes], where[:lanes] = -np.inf, offsets[0] + places
        for t in range(taps):
            new = image[offsets[t] + places]
            take = (new > best[:lanes]) | np.isnan(new)
            best[:lanes] = np.where(take, new, best[:lanes])
            where[:lanes] = np.where(take, offsets[t] + places, where[:lanes])

    @intrinsic(twin=twin)
    def largest(typingctx: Any, image: Any, offsets: Any, taps: Any, column: Any, best: Any, where: Any) -> Any:
        """best[q], where[q] = the first largest (the last NaN) of image[offsets[t] + step (column + q)] and its index."""
        from llvmlite import ir
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            start, table, count, first, best, where = values
            rows, kind = Rows(context, builder, image, lanes, step), ir.IntType(signature.args[5].dtype.bitwidth)
            shifted = builder.mul(first, rows.word(step))

            def turn(offset: Any, state: list) -> list:
                index = builder.add(offset, shifted)
                new = rows.load(builder.gep(start, [index]))
                take = builder.or_(builder.fcmp_ordered(">", new, state[0]), builder.fcmp_unordered("uno", new, new))
                return [builder.select(take, new, state[0]), builder.select(take, rows.integer(offset, kind), state[1])]

            begin = [rows.filled(float("-inf")), rows.integer(builder.load(table), kind)]
            value, offset = rows.over_taps(table, count, begin, turn)
            rows.store(value, best, rows.size)
            rows.store(builder.add(offset, rows.places(shifted, kind)), where, kind.width // 8)
            return context.get_dummy_value()

        return types.void(image, offsets, types.intp, types.intp, best, where), codegen

    return largest


def _sum(rows: Rows, values: tuple) -> Any:
    """The sum of source[offsets[t] + step (column + q)] over the taps, for values (source, offsets, taps, column)."""
    source, table, count, first = values
    builder = rows.builder
    shifted = builder.mul(first, rows.word(rows.step))

    def turn(offset: Any, state: list) -> list:
        return [builder.fadd(state[0], rows.load(builder.gep(source, [builder.add(offset, shifted)])))]

    return rows.over_taps(table, count, [rows.filled(0.0)], turn)[0]


def _sum_twin(source: Any, offsets: Any, taps: int, places: Any) -> Any:
    total = np.zeros(places.size, source.dtype)
    for t in range(taps):
        total += source[offsets[t] + places]
    return total


def _mean(lanes: int, step: int) -> Any:
    def twin(image: Any, offsets: Any, taps: int, column: int, divisor: int, y: Any) -> None:
        y[:lanes] = _sum_twin(image, offsets, taps, step * (column + np.arange(lanes))) / image.dtype.type(divisor)

    @intrinsic(twin=twin)
    def mean(typingctx: Any, image: Any, offsets: Any, taps: Any, column: Any, divisor: Any, y: Any) -> Any:
        """y[q] = the sum over t of image[offsets[t] + step (column + q)], divided by ``divisor``."""
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            rows = Rows(context, builder, image, lanes, step)
            total = _sum(rows, values[:4])
            number = builder.sitofp(values[4], rows.vector.element)
            rows.store(builder.fdiv(total, rows.splat(number)), values[5], rows.size)
            return context.get_dummy_value()

        return types.void(image, offsets, types.intp, types.intp, types.int64, y), codegen

    return mean


def _total(lanes: int) -> Any:
    def twin(source: Any, offsets: Any, taps: int, column: int, y: Any) -> None:
        y[:lanes] = _sum_twin(source, offsets, taps, column + np.arange(lanes))

    @intrinsic(twin=twin)
    def total(typingctx: Any, source: Any, offsets: Any, taps: Any, column: Any, y: Any) -> Any:
        """y[q] = the sum over t of source[offsets[t] + column + q]."""
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            rows = Rows(context, builder, source, lanes, 1)
            rows.store(_sum(rows, values[:4]), values[4], rows.size)
            return context.get_dummy_value()

        return types.void(source, offsets, types.intp, types.intp, y), codegen

    return total


def _total_pairs(lanes: int) -> Any:
    def twin(source: Any, even: Any, evens: int, odd: Any, odds: int, column: int, y: Any) -> None:
        places = column + np.arange(lanes)
        y[: 2 * lanes : 2] = _sum_twin(source, even, evens, places)
        y[1 : 2 * lanes : 2] = _sum_twin(source, odd, odds, places)

    @intrinsic(twin=twin)
    def total_pairs(
        typingctx: Any, source: Any, even: Any, evens: Any, odd: Any, odds: Any, column: Any, y: Any
    ) -> Any:
        """y[2 q] and y[2 q + 1] = ``total`` with the offsets ``even`` and ``odd``."""
        from llvmlite import ir
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            rows = Rows(context, builder, source, lanes, 1)
            start, first, y = values[0], values[5], values[6]
            sums = [_sum(rows, (start, table, count, first)) for table, count in (values[1:3], values[3:5])]
            order = [q // 2 + lanes * (q % 2) for q in range(2 * lanes)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * lanes), order)
            rows.store(builder.shuffle_vector(*sums, mask), y, rows.size)
            return context.get_dummy_value()

        return types.void(source, even, types.intp, odd, types.intp, types.intp, y), codegen

    return total_pairs


largest: Callable = _largest(LANES, 1)
largest_of_even: Callable = _largest(LANES, 2)
largest_few: Callable = _largest(FEW, 1)
largest_few_of_even: Callable = _largest(FEW, 2)
mean: Callable = _mean(LANES, 1)
mean_of_even: Callable = _mean(LANES, 2)
mean_few: Callable = _mean(FEW, 1)
mean_few_of_even: Callable = _mean(FEW, 2)
total: Callable = _total(LANES)
total_few: Callable = _total(FEW)
total_pairs: Callable = _total_pairs(LANES)
total_pairs_few: Callable = _total_pairs(FEW)
