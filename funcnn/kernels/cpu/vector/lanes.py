"""Vector instructions for one large window: many outputs at once go through its taps, their maxima held in registers.

LLVM's vectoriser leaves rows shorter than 64 to a scalar remainder. Here one call takes ``LANES`` outputs through all the
taps of a window, or ``FEW_LANES`` of them; LLVM fits that to the registers of the CPU. A row whose length is no multiple ends in
a vector that overlaps the one before it, with equal results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.writer import Writer

LANES, FEW_LANES = 16, 4


def _largest(lanes: int) -> Any:
    def twin(image: Any, offsets: Any, taps: int, best: Any, argmax: Any) -> None:
        lane = np.arange(lanes)
        best[:lanes], argmax[:lanes] = -np.inf, offsets[0] + lane
        for t in range(taps):
            new = image[offsets[t] + lane]
            take = (new > best[:lanes]) | np.isnan(new)
            best[:lanes] = np.where(take, new, best[:lanes])
            argmax[:lanes] = np.where(take, offsets[t] + lane, argmax[:lanes])

    @intrinsic(twin=twin)
    def largest(typingctx: Any, image: Any, offsets: Any, taps: Any, best: Any, argmax: Any) -> Any:
        """Writes best[q], argmax[q] = the first largest (the last NaN) of image[offsets[t] + q] and its index."""
        from llvmlite import ir
        from numba.core import types

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            start, table, count, best, found = values
            rows, kind = Writer.of(context, builder, image, lanes), ir.IntType(signature.args[4].dtype.bitwidth)

            def advance(t: Any, state: list) -> list:
                offset = builder.load(builder.gep(table, [t]))
                new = rows.at(start, offset)
                take = builder.or_(builder.fcmp_ordered(">", new, state[0]), builder.fcmp_unordered("uno", new, new))
                return [builder.select(take, new, state[0]), builder.select(take, rows.integer(offset, kind), state[1])]

            begin = [rows.same(float("-inf")), rows.integer(builder.load(table), kind)]
            value, offset = rows.loop(count, begin, advance)
            rows.put(value, best, rows.word(0))
            rows.put(builder.add(offset, rows.counted(rows.word(0), kind)), found, rows.word(0))
            return context.get_dummy_value()

        return types.void(image, offsets, types.intp, best, argmax), codegen

    return largest


largest: Callable = _largest(LANES)
largest_few: Callable = _largest(FEW_LANES)
