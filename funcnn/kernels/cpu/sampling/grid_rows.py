"""The taps of one place in images whose channels lie together: a weighted sum of pixels, and its transpose.

A pixel is a row of channels, taken in vectors of which the last is masked. An absent tap (index -1) is masked as a whole: it
adds nothing, where a weight of zero would make NaN of an infinite pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.rows import Row


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
        Taps(builder, context.get_data_type(source.dtype), source.dtype.bitwidth // 8).emit_gather(*values)
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
    """Add weight[t * apart] times the row ``source`` to pixel index[t * apart] of ``target``, for every t."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Taps(builder, context.get_data_type(source.dtype), source.dtype.bitwidth // 8).emit_scatter(*values)
        return context.get_dummy_value()

    return types.void(target, source, types.intp, index, weight, types.intp, types.intp), codegen


class Taps(Row):
    """The IR: a loop over the vectors of a pixel, and in it one over the taps."""

    def emit_gather(self, out: Any, source: Any, channels: Any, *table: Any) -> None:
        """Multiply-adds into a sum that stays in a register."""
        builder = self.builder
        with self._steps(channels) as c:
            mask = self._below(builder.sub(channels, c))

            def turn(pixel: Any, there: Any, factor: Any, total: Any) -> Any:
                value = self._masked_load(builder.gep(source, [builder.add(pixel, c)]), there)
                return builder.call(self.fma, [factor, value, total])

            zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
            self._masked_store(self._over(table, channels, mask, zero, turn), builder.gep(out, [c]), mask)

    def emit_scatter(self, target: Any, source: Any, channels: Any, *table: Any) -> None:
        """The row stays in a register; each tap reads, adds and writes."""
        builder = self.builder
        with self._steps(channels) as c:
            mask = self._below(builder.sub(channels, c))

            def turn(pixel: Any, there: Any, factor: Any, value: Any) -> Any:
                place = builder.gep(target, [builder.add(pixel, c)])
                total = builder.call(self.fma, [factor, value, self._masked_load(place, there)])
                self._masked_store(total, place, there)
                return value

            self._over(table, channels, mask, self._masked_load(builder.gep(source, [c]), mask), turn)

    def _over(self, table: tuple, channels: Any, mask: Any, state: Any, turn: Callable) -> Any:
        """``state = turn(where the pixel begins, mask, weight, state)`` for each tap; taps > 0."""
        index, weight, apart, taps = table
        builder, before = self.builder, self.builder.block
        loop, after = builder.append_basic_block("taps"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        t, held = builder.phi(self.word), builder.phi(state.type)
        place = builder.mul(t, apart)
        pixel = builder.load(builder.gep(index, [place]))
        there = builder.icmp_signed(">=", pixel, self.word(0))
        present = builder.select(there, mask, self.ir.Constant(mask.type, [0] * self.lanes))
        factor = self._splat(builder.load(builder.gep(weight, [place])))
        new = turn(builder.mul(pixel, channels), present, factor, held)
        following = builder.add(t, self.word(1))
        for phi, first, value in ((t, self.word(0), following), (held, state, new)):
            phi.add_incoming(first, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, taps), loop, after)
        builder.position_at_end(after)
        return new
