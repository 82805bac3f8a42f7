"""Vector instructions for one large window: many numbers at once go through it, their maxima held in registers.

LLVM's vectoriser leaves rows shorter than 64 to a scalar remainder. Here one call takes ``LANES`` numbers through all the
pieces of a window, or ``FEW_LANES`` of them; LLVM fits that to the registers of the CPU. A row whose length is no multiple ends in
a piece that overlaps the one before it, with equal results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic

LANES, FEW_LANES = 16, 4


def over_taps(builder: Any, taps: Any, before: list, turn: Callable) -> list:
    """``state = turn(t, state)`` for t in range(taps), taps > 0, with the state in registers."""
    from llvmlite import ir

    word, entry = ir.IntType(64), builder.block
    loop, after = builder.append_basic_block("taps"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    t = builder.phi(word)
    state = [builder.phi(value.type) for value in before]
    new = turn(t, state)
    following = builder.add(t, word(1))
    for phi, first, value in zip([t, *state], [word(0), *before], [following, *new], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, taps), loop, after)
    builder.position_at_end(after)
    return new


class Rows:
    """Loads and loops of vectors of ``lanes`` numbers."""

    def __init__(self, context: Any, builder: Any, pointer: Any, lanes: int):
        from llvmlite import ir

        self.ir, self.builder, self.lanes = ir, builder, lanes
        self.size = pointer.dtype.bitwidth // 8
        self.vector = ir.VectorType(context.get_data_type(pointer.dtype), lanes)
        self.word = ir.IntType(64)

    def load(self, source: Any) -> Any:
        """source[0], source[1], ..."""
        return self.builder.load(self.builder.bitcast(source, self.vector.as_pointer()), align=self.size)

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
        """first, first + 1, ... as integers of ``kind``."""
        return self.builder.add(self.integer(first, kind), self._constant(kind, list(range(self.lanes))))

    def filled(self, number: float) -> Any:
        """The same number in all lanes."""
        return self.ir.Constant(self.vector, [number] * self.lanes)


def _largest(lanes: int) -> Any:
    def twin(image: Any, offsets: Any, taps: int, best: Any, where: Any) -> None:
        places = np.arange(lanes)
        best[:lanes], where[:lanes] = -np.inf, offsets[0] + places
        for t in range(taps):
            new = image[offsets[t] + places]
            take = (new > best[:lanes]) | np.isnan(new)
            best[:lanes] = np.where(take, new, best[:lanes])
            where[:lanes] = np.where(take, offsets[t] + places, where[:lanes])

    @intrinsic(twin=twin)
    def largest(typingctx: Any, image: Any, offsets: Any, taps: Any, best: Any, where: Any) -> Any:
        """best[q], where[q] = the first largest (the last NaN) of image[offsets[t] + q] and its index."""
        from llvmlite import ir
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            start, table, count, best, where = values
            rows, kind = Rows(context, builder, image, lanes), ir.IntType(signature.args[4].dtype.bitwidth)

            def turn(t: Any, state: list) -> list:
                offset = builder.load(builder.gep(table, [t]))
                new = rows.load(builder.gep(start, [offset]))
                take = builder.or_(builder.fcmp_ordered(">", new, state[0]), builder.fcmp_unordered("uno", new, new))
                return [builder.select(take, new, state[0]), builder.select(take, rows.integer(offset, kind), state[1])]

            begin = [rows.filled(float("-inf")), rows.integer(builder.load(table), kind)]
            value, offset = over_taps(builder, count, begin, turn)
            rows.store(value, best, rows.size)
            rows.store(builder.add(offset, rows.places(rows.word(0), kind)), where, kind.width // 8)
            return context.get_dummy_value()

        return types.void(image, offsets, types.intp, best, where), codegen

    return largest


largest: Callable = _largest(LANES)
largest_few: Callable = _largest(FEW_LANES)
