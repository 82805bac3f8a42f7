"""Where the first of a row is that equals its extremum: whole vectors are compared until one of them has a hit.

A loop over elements with an exit stays a loop over elements: LLVM does not vectorise it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.writer import Writer

VECTORS = 4  # that are compared before their hits are looked at


def _first_twin(source: Any, count: int, top: Any) -> int:
    row = source[:count]
    return int(np.argmax((row == top) | (row != row)))


@intrinsic(twin=_first_twin)
def first_in_row(typingctx: Any, source: Any, count: Any, top: Any) -> Any:
    """Returns the index of the first of ``source[:count]`` that equals ``top`` or is NaN; there must be one."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return Search.of(context, builder, source).emit_first(*values)

    return types.intp(source, types.intp, source.dtype), codegen


class Search(Writer):
    """Writes a search in a row."""

    def emit_first(self, source: Any, count: Any, top: Any) -> Any:
        """Writes a loop over VECTORS at a time that ends at a hit, and one over single vectors, the last one with a mask."""
        from numba.core import cgutils

        builder, word, tops = self.builder, self.word, self.splat(top)
        at = cgutils.alloca_once_value(builder, word(0))
        bits = self.ir.IntType(self.lanes)
        many, step = VECTORS * self.lanes, self.lanes

        def within(size: int) -> Any:
            return builder.icmp_signed("<=", builder.add(builder.load(at), word(size)), count)

        def hits_of_many() -> Any:
            row = builder.gep(source, [builder.load(at)])
            hits = [self._hits(self.load(row, j), tops) for j in range(VECTORS)]
            while len(hits) > 1:
                hits = [builder.or_(a, b) for a, b in zip(hits[::2], hits[1::2], strict=True)]
            return builder.bitcast(hits[0], bits)

        def hits_of_one() -> Any:
            k = builder.load(at)
            mask = self.below(builder.sub(count, k))
            hits = self._hits(self.masked_load(builder.gep(source, [k]), mask), tops)
            return builder.bitcast(builder.and_(hits, mask), bits)

        self._until(lambda: within(many), hits_of_many, at, many)
        found = self._until(lambda: within(1), hits_of_one, at, step)
        low = builder.cttz(builder.load(found), self.ir.IntType(1)(0))
        return builder.add(builder.load(at), builder.zext(low, word) if self.lanes < 64 else low)

    def _hits(self, x: Any, tops: Any) -> Any:
        """Returns the lanes that equal the extremum or are NaN."""
        equal = self.builder.fcmp_ordered("==", x, tops)
        return self.builder.or_(equal, self.builder.fcmp_unordered("uno", x, x))

    def _until(self, more: Any, hits: Any, at: Any, step: int) -> Any:
        """Writes ``while more(): found = hits(); if found: break; at += step`` and returns where ``found`` is kept."""
        from numba.core import cgutils

        builder = self.builder
        bits = self.ir.IntType(self.lanes)
        found = cgutils.alloca_once_value(builder, bits(0))
        builder.store(bits(0), found)
        head, body, on, end = (builder.append_basic_block(f"search.{name}") for name in ("head", "body", "on", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        builder.cbranch(more(), body, end)
        builder.position_at_end(body)
        builder.store(hits(), found)
        builder.cbranch(builder.icmp_unsigned("==", builder.load(found), bits(0)), on, end)
        builder.position_at_end(on)
        builder.store(builder.add(builder.load(at), self.word(step)), at)
        builder.branch(head)
        builder.position_at_end(end)
        return found
