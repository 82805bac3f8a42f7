"""Rows of images for windows a step apart, whole vectors at a time.

A row is split by phase first: column ``step * u + e`` is element u of phase e. Then a tap of neighbouring windows is a run of
elements, for any step and without shuffles in the loop over taps. A margin in front of and behind each phase
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

from funcnn.kernels.cpu.build.compile import device_function, intrinsic, kernel_from
from funcnn.kernels.cpu.pool.phases import part
from funcnn.kernels.cpu.vector.streaming import stream
from funcnn.kernels.cpu.vector.writer import Writer

GROUP_VECTORS = 2  # that go through the taps together, so that two chains of sums hide each other's latency


class WindowRow(Writer):
    """Writes loops over the vectors of a row."""

    @contextmanager
    def groups(self, count: Any, vectors: int) -> Any:
        """Writes a loop over groups of vectors below ``count``: where each vector of the group begins."""
        with self.steps(count, vectors) as k:
            yield [self.builder.add(k, self.word(v * self.lanes)) for v in range(vectors)]

    def sums(self, source: Any, offsets: Any, taps: Any, starts: list) -> list:
        """Returns for each start the sum of source[offsets[t] + start + lane] over the taps."""

        def advance(t: Any, state: list) -> list:
            offset = self.builder.load(self.builder.gep(offsets, [t]))
            return [self.builder.fadd(s, self.at(source, offset, k)) for s, k in zip(state, starts, strict=True)]

        return self.loop(taps, [self.same(0.0)] * len(starts), advance)

    def interleaved(self, even: Any, odd: Any) -> list:
        """Returns the two vectors of even[0], odd[0], even[1], ..."""
        lanes = [q // 2 + self.lanes * (q % 2) for q in range(2 * self.lanes)]
        return [self.pick(even, odd, lanes[: self.lanes]), self.pick(even, odd, lanes[self.lanes :])]


# ---- rows by phase ----------------------------------------------------------------------------------------------------
def _phased(step: int, largest: bool) -> Any:
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
    def phased(
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
        """Computes target[e * apart + u] = the sum of weights[t] source[offsets[t] + step u + e] over the taps (at least one), or the
        largest element there; whether there is NaN. Beyond ``width`` a last vector goes on as if ``fill`` stood there."""
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _Phases.of(context, builder, source, step, largest).emit(*values)

        return types.boolean(
            source, offsets, weights, types.intp, types.intp, target, types.intp, source.dtype
        ), codegen

    return phased


class _Phases(WindowRow):
    """Writes ``phased`` for a step of 1 or 2, of sums or of maxima."""

    def __init__(self, builder: Any, scalar: Any, size: int, step: int, largest: bool):
        super().__init__(builder, scalar, size)
        self.step, self.largest = step, largest

    def emit(
        self, source: Any, offsets: Any, weights: Any, taps: Any, width: Any, target: Any, apart: Any, fill: Any
    ) -> Any:
        """Writes a loop over groups of whole vectors, and a group with masks for what is left."""
        from numba.core import cgutils

        builder, word = self.builder, self.word
        self.nan = cgutils.alloca_once_value(builder, self.same(0, self.ir.IntType(1)))
        blank = self.splat(fill)
        whole = builder.and_(width, word(-GROUP_VECTORS * self.lanes))
        with self.steps(whole, GROUP_VECTORS) as k:
            self._group(source, offsets, weights, taps, target, apart, k, self.load)
        with builder.if_then(builder.icmp_signed("<", whole, width)):
            rest = builder.sub(width, whole)

            def masked(row: Any, v: int) -> Any:
                inside = self.below(builder.sub(rest, word(v * self.lanes)))
                return self.masked_load(builder.gep(row, [word(v * self.lanes)]), inside, blank)

            self._group(source, offsets, weights, taps, target, apart, whole, masked)
        bits = self.ir.IntType(self.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(builder.load(self.nan), bits), bits(0))

    def _group(
        self, source: Any, offsets: Any, weights: Any, taps: Any, target: Any, apart: Any, k: Any, load: Callable
    ) -> None:
        """Writes the loop over the taps of the vectors from k on, and the stores of what it found."""
        builder, word = self.builder, self.word

        def advance(t: Any, state: list) -> list:
            row = builder.gep(builder.gep(source, [builder.load(builder.gep(offsets, [t]))]), [k])
            news = [load(row, v) for v in range(GROUP_VECTORS)]
            if self.largest:
                self._note(*news)
                takes = [builder.fcmp_ordered(">", new, s) for new, s in zip(news, state, strict=True)]
                return [builder.select(*chosen) for chosen in zip(takes, news, state, strict=True)]
            weight = self.splat(builder.load(builder.gep(weights, [t])))
            return [builder.call(self.fma, [new, weight, s]) for new, s in zip(news, state, strict=True)]

        found = self.loop(taps, [self.same(float("-inf") if self.largest else -0.0)] * GROUP_VECTORS, advance)
        if not self.largest:
            self._note(*found)
        if self.step == 1:
            for v, vector in enumerate(found):
                self.put(vector, target, builder.add(k, word(v * self.lanes)))
            return
        u = builder.lshr(k, word(1))
        for e in range(2):
            lanes = [2 * q + e for q in range(self.lanes)]
            self.put(self.pick(found[0], found[1], lanes), builder.gep(target, [builder.mul(apart, word(e))]), u)

    def _note(self, first: Any, second: Any) -> None:
        """Writes that NaN in two vectors is kept in mind."""
        wrong = self.builder.fcmp_unordered("uno", first, second)
        self.builder.store(self.builder.or_(self.builder.load(self.nan), wrong), self.nan)


def _by_phase(source, offsets, weights, taps, width, step, target, apart, fill, line):
    if step == 1:
        return whole(source, offsets, weights, taps, width, target, apart, fill)  # noqa: F821
    if step == 2:
        return halves(source, offsets, weights, taps, width, target, apart, fill)  # noqa: F821
    nan = whole(source, offsets, weights, taps, width, line, apart, fill)  # noqa: F821
    part(line, width, step, target, apart)
    return nan


sum_by_phase: Callable = kernel_from(_by_phase, "sum_by_phase", whole=_phased(1, False), halves=_phased(2, False))
sum_by_phase.__doc__ = (
    """Writes ``phased`` sums for any step; whether there is NaN. line: room for ``geometry.line_length`` elements."""
)
largest_by_phase: Callable = kernel_from(_by_phase, "largest_by_phase", whole=_phased(1, True), halves=_phased(2, True))
largest_by_phase.__doc__ = """Writes ``phased`` maxima, which know nothing of NaN; the weights are not read."""


@device_function
def three_from(table, at):
    """Reads three entries of a table."""
    return table[at], table[at + 1], table[at + 2]


@device_function
def fill(target, value, count):
    """Writes ``target[:count] = value``."""
    for i in range(count):
        target[i] = value


@device_function
def deliver(target, room, count, past):
    """Copies what was computed into the first-level cache to memory."""
    if past:
        stream(target, room, count)
    else:
        for i in range(count):
            target[i] = room[i]


@device_function
def lines_under(lines, o, p, x, size, stride, padding, dilation):
    """Writes the offsets of the rows of an image that the windows at depth o and height p cover; returns how many."""
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
