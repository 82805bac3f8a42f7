"""The vector instructions that kernels stand on: raw pointers, fused multiply-add, and the register tile of a product.

LLVM vectorises plain loops well when it sees plain addresses, so ``pointer(x, offset)`` gives an unchecked C pointer
(Numba's arrays test every index for being negative). What it does not find by itself is a register tile: ``tile_product``
emits one as vector IR, ``ROWS x COLUMNS`` accumulators that stay in registers for the whole sum.

Tile, by the registers of the CPU, measured in GFLOP/s on one core: with 32 registers of 512 bits 8 x 3 vectors reach
116.7 of the 117.5 that an AMD Zen 4 core can do (14 x 2 and 6 x 4 as well), 136 of 152 on Intel's Cascade Lake; with 16
registers of 256 bits 6 x 2 reaches 117.7 of 117.7. Other widths than the CPU's are legalised by LLVM, only slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.machine import tile_shape
from funcnn.kernels.cpu.vector.writer import Writer


# ---- scalars --------------------------------------------------------------------------------------------------------
def _pointer_twin(x: Any, offset: int) -> Any:
    return x.reshape(-1)[offset:]


@intrinsic(twin=_pointer_twin)
def pointer(typingctx: Any, x: Any, offset: Any) -> Any:
    """Computes the address of element ``offset`` of a contiguous array; ``p[i]`` reads and writes without checks.

    Typing fails for arrays of another layout, whose elements do not follow each other in memory. A pointer does not keep its
    array alive: one that a kernel allocates is freed after the last line that names it, so its pointers are taken where they
    are used, inside the loop.
    """
    from numba.core import errors, types

    if isinstance(x, types.Array) and x.layout != "C":
        raise errors.TypingError(f"pointer: expected a C-contiguous array, got {x}; pass np.ascontiguousarray of it")
    kind = types.CPointer(x.dtype)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        return builder.gep(array.data, [values[1]])

    return kind(x, types.intp), codegen


def _shift_twin(p: Any, offset: int) -> Any:
    return p[offset:]


@intrinsic(twin=_shift_twin)
def shift(typingctx: Any, p: Any, offset: Any) -> Any:
    """Computes the pointer ``offset`` elements further on."""
    from numba.core import types

    return p(p, types.intp), lambda context, builder, signature, values: builder.gep(values[0], [values[1]])


@intrinsic(twin=lambda: None)
def outlined(typingctx: Any) -> Any:
    """Keeps the helper that calls this a function of its own: inlined, it would take registers from the loops around it."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def _fma_twin(a: Any, b: Any, c: Any) -> Any:
    x, y, z = float(a), float(b), float(c)
    if a.dtype.itemsize == 4:
        return np.float32(x * y + z)
    product = (
        x * y
    )  # its error by Dekker's splitting, the sum's by Knuth's ("Handbook of Floating-Point Arithmetic", 4)
    left, right = x * 134217729.0, y * 134217729.0  # 2^27 + 1: 26 bits of each
    left, right = left - (left - x), right - (right - y)
    error = ((left * right - product) + left * (y - right) + (x - left) * right) + (x - left) * (y - right)
    total = product + z
    part = total - product
    exact = total + ((product - (total - part)) + (z - part) + error)
    return np.float64(exact if exact == exact else total)  # infinity has no parts


@intrinsic(twin=_fma_twin)
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` rounded once, never rearranged."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return a(a, a, a), codegen


# ---- the register tile ----------------------------------------------------------------------------------------------
def _tile_twin(count: int, a: Any, b: Any, c: Any, stride: int, accumulate: bool) -> None:
    rows, columns = tile_shape(c.dtype.itemsize)
    product = a[: count * rows].reshape(count, rows).T @ b[: count * columns].reshape(count, columns)
    for i in range(rows):
        row = c[i * stride : i * stride + columns]
        row[:] = row + product[i] if accumulate else product[i]


@intrinsic(twin=_tile_twin)
def tile_product(typingctx: Any, count: Any, a: Any, b: Any, c: Any, stride: Any, accumulate: Any) -> Any:
    """Computes ``c[i, j] (+)= sum(a[k, i] * b[k, j])`` for a whole tile of c, whose rows are ``stride`` apart.

    a: ``count`` columns of ROWS elements; b: ``count`` rows of COLUMNS elements; both packed, read once from front to back.
    """
    from numba.core import types

    signature = types.void(types.intp, a, b, c, types.intp, types.boolean)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Tile.of(context, builder, c).emit(*values)
        return context.get_dummy_value()

    return signature, codegen


class Tile(Writer):
    """Writes one tile product: a loop over ``count`` whose accumulators stay in registers, then the stores."""

    def __init__(self, builder: Any, scalar: Any, size: int):
        super().__init__(builder, scalar, size)
        self.rows, columns = tile_shape(size)
        self.across = columns // self.lanes

    def emit(self, count: Any, a: Any, b: Any, c: Any, stride: Any, accumulate: Any) -> None:
        """Writes the loop and the stores; accumulate: whether the sums are added to c, None where they never are."""
        zero, across = self.same(0.0), self.across

        def advance(k: Any, state: list) -> list:
            sums = [state[i * across : (i + 1) * across] for i in range(self.rows)]
            return [value for row in self._step(sums, k, a, b) for value in row]

        sums = self.loop(count, [zero] * (self.rows * across), advance)
        rows = [sums[i * across : (i + 1) * across] for i in range(self.rows)]
        if accumulate is None:
            self._store_tile(rows, c, stride, False)
            return
        with self.builder.if_else(accumulate) as (adding, plain):
            with adding:
                self._store_tile(rows, c, stride, True)
            with plain:
                self._store_tile(rows, c, stride, False)

    def _step(self, sums: list, k: Any, a: Any, b: Any) -> list:
        """Returns one k: a column of a times a row of b. Of the two the shorter stays in registers, the longer comes one by one."""
        row, many, wide = self.row(b, k), range(self.rows), range(self.across)
        new: list = [[None for _ in wide] for _ in many]
        if self.rows < self.across:
            column = [self._element(a, k, i) for i in many]
            for j in wide:
                vector = self.load(row, j)
                for i in many:
                    new[i][j] = self.builder.call(self.fma, [column[i], vector, sums[i][j]])
            return new
        vectors = [self.load(row, j) for j in wide]
        for i in many:
            element = self._element(a, k, i)
            for j in wide:
                new[i][j] = self.builder.call(self.fma, [element, vectors[j], sums[i][j]])
        return new

    def _element(self, a: Any, k: Any, i: int) -> Any:
        """Element i of column k of a, in all lanes."""
        return self.splat(self.builder.load(self.element(a, k, i)))

    def element(self, a: Any, k: Any, i: int) -> Any:
        """Returns the address of element i of column k of a."""
        column = self.builder.gep(a, [self.builder.mul(k, self.word(self.rows))])
        return self.builder.gep(column, [self.word(i)])

    def row(self, b: Any, k: Any) -> Any:
        """Returns the address of row k of b."""
        return self.builder.gep(b, [self.builder.mul(k, self.word(self.across * self.lanes))])

    def _store_tile(self, sums: list, c: Any, stride: Any, adding: bool) -> None:
        builder = self.builder
        for i, values in enumerate(sums):
            row = builder.gep(c, [builder.mul(stride, self.word(i))])
            for j, value in enumerate(values):
                self.store(builder.fadd(value, self.load(row, j)) if adding else value, row, j)
