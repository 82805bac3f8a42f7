"""Rows of images for windows a step apart, whole vectors at a time.

A row is spread by phase first: column ``step * u + e`` is number u of phase e. Then a tap of neighbouring windows is a run of
neighbouring numbers, for any step and without shuffles in the loop over taps. A margin in front of and behind each phase
stands for the padding, so windows at the borders are like all others.

What is written may go on beyond the end of a row, to the end of a vector or two; readers and writers leave slack there
(``geometry.py``).
Only the image itself is read with a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, intrinsic
from funcnn.kernels.cpu.pool.phases import part
from funcnn.kernels.cpu.vector.lanes import over_taps
from funcnn.kernels.cpu.vector.rows import Row
from funcnn.kernels.cpu.vector.streaming import stream

TOGETHER = 2  # vectors that go through the taps together


class WindowRow(Row):
    """The IR of loops over the vectors of a row."""

    def __init__(self, context: Any, builder: Any, pointer: Any):
        super().__init__(builder, context.get_data_type(pointer.dtype), pointer.dtype.bitwidth // 8)

    def at(self, row: Any, *places: Any) -> Any:
        """The vector that begins at the sum of the places."""
        for place in places:
            row = self.builder.gep(row, [place])
        return self._load(row, 0)

    def put(self, value: Any, row: Any, place: Any) -> None:
        """Write a vector of any type."""
        to = self.builder.bitcast(self.builder.gep(row, [place]), value.type.as_pointer())
        self.builder.store(value, to, align=self.size if value.type == self.vector else value.type.element.width // 8)

    @contextmanager
    def groups(self, count: Any, vectors: int) -> Any:
        """A loop over groups of vectors below ``count``: where each vector of the group begins."""
        from numba.core import cgutils

        builder, word = self.builder, self.word
        step = word(vectors * self.lanes)
        with cgutils.for_range_slice(builder, word(0), count, step, inc=True) as (k, _):
            yield [builder.add(k, word(v * self.lanes)) for v in range(vectors)]

    def sums(self, source: Any, offsets: Any, taps: Any, starts: list) -> list:
        """For each start the sum of source[offsets[t] + start + lane] over the taps."""
        zero = self.ir.Constant(self.vector, [0.0] * self.lanes)

        def turn(t: Any, state: list) -> list:
            offset = self.builder.load(self.builder.gep(offsets, [t]))
            return [self.builder.fadd(s, self.at(source, offset, k)) for s, k in zip(state, starts, strict=True)]

        return over_taps(self.builder, taps, [zero] * len(starts), turn)

    def interleaved(self, even: Any, odd: Any) -> list:
        """The two vectors of even[0], odd[0], even[1], ..."""
        places = [q // 2 + self.lanes * (q % 2) for q in range(2 * self.lanes)]
        return [self._pick(even, odd, places[: self.lanes]), self._pick(even, odd, places[self.lanes :])]

    def integers(self, number: Any, kind: Any) -> Any:
        """A 64-bit integer, cut to ``kind``, in all lanes."""
        ir, builder = self.ir, self.builder
        number = builder.trunc(number, kind) if kind.width < 64 else number
        blank = ir.Constant(ir.VectorType(kind, self.lanes), ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(builder.insert_element(blank, number, ir.IntType(32)(0)), blank, zeros)

    def counted(self, first: Any, step: int, kind: Any) -> Any:
        """first, first + step, ... as integers of ``kind``."""
        steps = self.ir.Constant(self.ir.VectorType(kind, self.lanes), [step * q for q in range(self.lanes)])
        return self.builder.add(self.integers(first, kind), steps)


# ---- spreading --------------------------------------------------------------------------------------------------------
def _spread(step: int, largest: bool) -> Any:
    def twin(
        source: Any, offsets: Any, weights: Any, taps: int, width: int, target: Any, apart: int, fill: Any
    ) -> bool:
        rows = [source[offsets[t] : offsets[t] + width] for t in range(taps)]
        total = np.max(rows, 0) if largest else sum(row * weights[t] for t, row in enumerate(rows))
        for e in range(step):
            part = total[e::step]
            target[e * apart : e * apart + part.size] = part
        return bool(np.isnan(total).any())

    @intrinsic(twin=twin)
    def spread(
        typingctx: Any,
        source: Any,
        offsets: Any,
        weights: Any,
        taps: Any,
        width: Any,
        target: Any,
        apart: Any,
        fill: Any,
    ) -> Any:
        """target[e * apart + u] = the sum of weights[t] source[offsets[t] + step u + e] over the taps (at least one), or the
        largest number there; whether there is NaN. Beyond ``width`` a last vector goes on as if ``fill`` stood there."""
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _Spread(context, builder, source).emit_spread(step, largest, *values)

        return types.boolean(
            source, offsets, weights, types.intp, types.intp, target, types.intp, source.dtype
        ), codegen

    return spread


class _Spread(WindowRow):
    """The IR of ``spread``."""

    def emit_spread(
        self,
        step: int,
        largest: bool,
        source: Any,
        offsets: Any,
        weights: Any,
        taps: Any,
        width: Any,
        target: Any,
        apart: Any,
        fill: Any,
    ) -> Any:
        from numba.core import cgutils

        ir, builder, word = self.ir, self.builder, self.word
        mask = ir.VectorType(ir.IntType(1), self.lanes)
        nan = cgutils.alloca_once_value(builder, ir.Constant(mask, [0] * self.lanes))
        blank = self._splat(fill)

        def note(first: Any, second: Any) -> None:
            wrong = builder.fcmp_unordered("uno", first, second)
            builder.store(builder.or_(builder.load(nan), wrong), nan)

        def block(k: Any, load: Callable) -> None:
            def turn(t: Any, state: list) -> list:
                row = builder.gep(builder.gep(source, [builder.load(builder.gep(offsets, [t]))]), [k])
                news = [load(row, v) for v in range(TOGETHER)]
                if largest:
                    note(*news)
                    takes = [builder.fcmp_ordered(">", new, s) for new, s in zip(news, state, strict=True)]
                    return [builder.select(*chosen) for chosen in zip(takes, news, state, strict=True)]
                weight = self._splat(builder.load(builder.gep(weights, [t])))
                return [builder.call(self.fma, [new, weight, s]) for new, s in zip(news, state, strict=True)]

            nothing = ir.Constant(self.vector, [float("-inf") if largest else -0.0] * self.lanes)
            sums = over_taps(builder, taps, [nothing] * TOGETHER, turn)
            if not largest:
                note(*sums)
            if step == 1:
                for v, vector in enumerate(sums):
                    self.put(vector, target, builder.add(k, word(v * self.lanes)))
                return
            u = builder.lshr(k, word(1))
            for e in range(2):
                places = [2 * q + e for q in range(self.lanes)]
                self.put(self._pick(sums[0], sums[1], places), builder.gep(target, [builder.mul(apart, word(e))]), u)

        whole = builder.and_(width, word(-TOGETHER * self.lanes))
        with cgutils.for_range_slice(builder, word(0), whole, word(TOGETHER * self.lanes), inc=True) as (k, _):
            block(k, self._load)
        with builder.if_then(builder.icmp_signed("<", whole, width)):
            rest = builder.sub(width, whole)

            def masked(row: Any, v: int) -> Any:
                inside = self._below(builder.sub(rest, word(v * self.lanes)))
                place = self._address(row, v)
                return self._masked("load", self.vector, [place, ir.IntType(32)(self.size), inside, blank])

            block(whole, masked)
        bits = ir.IntType(self.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(builder.load(nan), bits), bits(0))


spread_whole: Callable = _spread(1, False)
spread_halves: Callable = _spread(2, False)
spread_whole_maxima: Callable = _spread(1, True)
spread_half_maxima: Callable = _spread(2, True)


@device_function
def spread(source, offsets, weights, taps, width, step, target, apart, fill, line):
    """``spread`` for any step; whether a number is NaN. line: room for ``geometry.line_length`` numbers."""
    if step == 1:
        return spread_whole(source, offsets, weights, taps, width, target, apart, fill)
    if step == 2:
        return spread_halves(source, offsets, weights, taps, width, target, apart, fill)
    nan = spread_whole(source, offsets, weights, taps, width, line, apart, fill)
    part(line, width, step, target, apart)
    return nan


@device_function
def spread_maxima(source, offsets, taps, width, step, target, apart, lowest, line):
    """The largest of the taps, spread for any step; whether there is NaN, of which the maxima then know nothing."""
    if step == 1:
        return spread_whole_maxima(source, offsets, source, taps, width, target, apart, lowest)
    if step == 2:
        return spread_half_maxima(source, offsets, source, taps, width, target, apart, lowest)
    nan = spread_whole_maxima(source, offsets, source, taps, width, line, apart, lowest)
    part(line, width, step, target, apart)
    return nan


@device_function
def three_from(table, at):
    """Three numbers of a table."""
    return table[at], table[at + 1], table[at + 2]


@device_function
def fill(target, value, count):
    """``target[:count] = value``."""
    for i in range(count):
        target[i] = value


@device_function
def deliver(target, room, count, past):
    """What was computed into the first-level cache, to memory."""
    if past:
        stream(target, room, count)
    else:
        for i in range(count):
            target[i] = room[i]


@device_function
def lines_under(lines, o, p, x, size, stride, padding, dilation):
    """Where in an image the rows begin that the windows at depth o and height p cover; returns how many."""
    _, D, H, W = x.shape
    taps = 0
    for a in range(size[0]):
        d = o * stride[0] - padding[0] + a * dilation[0]
        for i in range(size[1]):
            h = p * stride[1] - padding[1] + i * dilation[1]
            if d >= 0 and d < D and h >= 0 and h < H:
                lines[taps] = (d * H + h) * W
                taps += 1
    return taps
