"""Transposition of small tiles in registers, for arrays that are read along one dimension and written along another.

A tile of L x L elements, L to a vector, takes log2(L) rounds of L shuffles: round b exchanges the blocks of b x b elements beside
the diagonal. Element by element it would be L^2 loads and stores.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import device_function, intrinsic
from funcnn.kernels.cpu.machine import vector_bytes
from funcnn.kernels.cpu.vector.instructions import shift
from funcnn.kernels.cpu.vector.writer import Writer


def _tile_twin(source: Any, step: int, target: Any, apart: int, count: int) -> None:
    lanes = vector_bytes() // source.dtype.itemsize
    for j in range(min(count, lanes)):
        target[j * apart : j * apart + lanes] = source[j : j + (lanes - 1) * step + 1 : step]


@intrinsic(twin=_tile_twin)
def transpose_tile(typingctx: Any, source: Any, step: Any, target: Any, apart: Any, count: Any) -> Any:
    """Computes ``target[j * apart + i] = source[i * step + j]`` for the L lanes i of a vector and j < ``count`` <= L."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Transpose.of(context, builder, source).emit(*values)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), codegen


def _part_twin(source: Any, step: int, target: Any, apart: int, count: int, rows: int) -> None:
    for i in range(rows):
        for j in range(count):
            target[j * apart + i] = source[i * step + j]


@intrinsic(twin=_part_twin)
def transpose_part(typingctx: Any, source: Any, step: Any, target: Any, apart: Any, count: Any, rows: Any) -> Any:
    """``transpose_tile`` for the lanes i < ``rows`` <= L: nothing else is read or written."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Transpose.of(context, builder, source).emit(*values)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp, types.intp), codegen


@intrinsic(twin=lambda p: vector_bytes() // p.dtype.itemsize)
def lanes_of(typingctx: Any, p: Any) -> Any:
    """Computes how many elements a vector holds."""
    from numba.core import types

    lanes = 8 * vector_bytes() // p.dtype.bitwidth
    return types.intp(p), lambda context, builder, signature, values: context.get_constant(types.intp, lanes)


@device_function
def transpose(source, step, target, apart, rows, columns):
    """Writes ``target[j * apart + i] = source[i * step + j]`` for a matrix (rows, columns); the last tile begins in the one before."""
    lanes = lanes_of(source)
    if rows < lanes:
        for i in range(rows):
            for j in range(columns):
                target[j * apart + i] = source[i * step + j]
        return
    for start in range(0, rows, lanes):
        i = min(start, rows - lanes)
        for j in range(0, columns, lanes):
            transpose_tile(
                shift(source, i * step + j), step, shift(target, j * apart + i), apart, min(lanes, columns - j)
            )


@device_function
def transpose_narrow(source, step, target, apart, rows, columns):
    """``transpose`` for rows that may be fewer than a vector's lanes."""
    lanes = lanes_of(source)
    if rows >= lanes:
        transpose(source, step, target, apart, rows, columns)
        return
    for j in range(0, columns, lanes):
        transpose_part(shift(source, j), step, shift(target, j * apart), apart, min(lanes, columns - j), rows)


class Transpose(Writer):
    """Writes a transposition."""

    def emit(self, source: Any, step: Any, target: Any, apart: Any, count: Any, rows: Any = None) -> None:
        """Writes masked loads of ``count`` columns, the shuffles, and as many stores, masked where there are fewer rows."""
        builder, word = self.builder, self.word
        mask, none = self.below(count), self.below(word(0))
        lines = [builder.gep(source, [builder.mul(step, word(i))]) for i in range(self.lanes)]
        masks = [mask] * self.lanes
        if rows is not None:
            masks = [builder.select(builder.icmp_signed("<", word(i), rows), mask, none) for i in range(self.lanes)]
        vectors = [self.masked_load(*pair) for pair in zip(lines, masks, strict=True)]
        for j, vector in enumerate(self._shuffled(vectors)):
            with builder.if_then(builder.icmp_signed("<", word(j), count)):
                line = builder.gep(target, [builder.mul(apart, word(j))])
                if rows is None:
                    self.store(vector, line)
                else:
                    self.masked_store(vector, line, self.below(rows))

    def _shuffled(self, vectors: list) -> list:
        lanes, block = self.lanes, 1
        while block < lanes:
            low = [j if not j & block else lanes + j - block for j in range(lanes)]
            high = [j + block if not j & block else lanes + j for j in range(lanes)]
            vectors = [
                self.pick(vectors[i], vectors[i | block], low)
                if not i & block
                else self.pick(vectors[i ^ block], vectors[i], high)
                for i in range(lanes)
            ]
            block *= 2
        return vectors
