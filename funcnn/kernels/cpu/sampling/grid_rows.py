"""The taps of one grid point in images whose channels follow each other: a weighted sum of pixels, and its transpose.

A pixel is a row of channels, taken in vectors of which the last is masked. An absent tap (index -1) is masked as a whole: it
adds nothing, where a weight of zero would make NaN of an infinite pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.writer import Writer


def _gather_twin(out: Any, source: Any, channels: int, index: Any, weight: Any, apart: int, taps: int) -> None:
    out[:channels] = 0
    for t in range(0, taps * apart, apart):
        if index[t] >= 0:
            out[:channels] += weight[t] * source[index[t] * channels : (index[t] + 1) * channels]


@intrinsic(twin=_gather_twin)
def gather_taps(
    typingctx: Any, out: Any, source: Any, channels: Any, index: Any, weight: Any, apart: Any, taps: Any
) -> Any:
    """``out`` = the sum over t of weight[t * apart] times pixel index[t * apart] of ``source``."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Taps.of(context, builder, source).emit_gather(*values)
        return context.get_dummy_value()

    return types.void(out, source, types.intp, index, weight, types.intp, types.intp), codegen


def _scatter_twin(target: Any, source: Any, channels: int, index: Any, weight: Any, apart: int, taps: int) -> None:
    for t in range(0, taps * apart, apart):
        if index[t] >= 0:
            target[index[t] * channels : (index[t] + 1) * channels] += weight[t] * source[:channels]


@intrinsic(twin=_scatter_twin)
def scatter_taps(
    typingctx: Any, target: Any, source: Any, channels: Any, index: Any, weight: Any, apart: Any, taps: Any
) -> Any:
    """Adds weight[t * apart] times the row ``source`` to pixel index[t * apart] of ``target``, for every t."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Taps.of(context, builder, source).emit_scatter(*values)
        return context.get_dummy_value()

    return types.void(target, source, types.intp, index, weight, types.intp, types.intp), codegen


class Taps(Writer):
    """Writes a loop over the vectors of a pixel, and in it one over the taps."""

    def emit_gather(self, out: Any, source: Any, channels: Any, *table: Any) -> None:
        """Writes multiply-adds into a sum that stays in a register."""
        builder = self.builder
        with self.steps(channels) as c:
            mask = self.below(builder.sub(channels, c))

            def advance(pixel: Any, there: Any, factor: Any, total: Any) -> Any:
                value = self.masked_load(builder.gep(source, [builder.add(pixel, c)]), there)
                return builder.call(self.fma, [factor, value, total])

            self.masked_store(self._over(table, channels, mask, self.same(0.0), advance), builder.gep(out, [c]), mask)

    def emit_scatter(self, target: Any, source: Any, channels: Any, *table: Any) -> None:
        """Writes the transpose: the row stays in a register; each tap reads, adds and writes."""
        builder = self.builder
        with self.steps(channels) as c:
            mask = self.below(builder.sub(channels, c))

            def advance(pixel: Any, there: Any, factor: Any, value: Any) -> Any:
                row = builder.gep(target, [builder.add(pixel, c)])
                total = builder.call(self.fma, [factor, value, self.masked_load(row, there)])
                self.masked_store(total, row, there)
                return value

            self._over(table, channels, mask, self.masked_load(builder.gep(source, [c]), mask), advance)

    def _over(self, table: tuple, channels: Any, mask: Any, state: Any, advance: Callable) -> Any:
        """Computes ``state = advance(offset of the pixel, mask, weight, state)`` for each tap; taps > 0."""
        index, weight, apart, taps = table
        builder = self.builder

        def add(t: Any, held: list) -> list:
            entry = builder.mul(t, apart)
            pixel = builder.load(builder.gep(index, [entry]))
            there = builder.icmp_signed(">=", pixel, self.word(0))
            present = builder.select(there, mask, self.constant([0] * self.lanes, mask.type.element))
            factor = self.splat(builder.load(builder.gep(weight, [entry])))
            return [advance(builder.mul(pixel, channels), present, factor, *held)]

        return self.loop(taps, [state], add)[0]
