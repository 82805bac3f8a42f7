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
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes


# ---- scalars --------------------------------------------------------------------------------------------------------
def _pointer_twin(x: Any, offset: int) -> Any:
    return x.reshape(-1)[offset:]


@intrinsic(twin=_pointer_twin)
def pointer(typingctx: Any, x: Any, offset: Any) -> Any:
    """The address of element ``offset`` of a contiguous array; ``p[i]`` reads and writes without checks.

    Typing fails for arrays of another layout, whose numbers do not lie one after another. It does not keep the array alive: one that a kernel allocates is freed after the last line that names it, so its
    pointers are taken where they are used, inside the loop.
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
    """The pointer ``offset`` elements further on."""
    from numba.core import types

    return p(p, types.intp), lambda context, builder, signature, values: builder.gep(values[0], [values[1]])


@intrinsic(twin=lambda: None)
def outlined(typingctx: Any) -> Any:
    """Keep the helper that says this a function of its own: inlined, it would take registers from the loops around it."""
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
    """``c[i, j] (+)= sum(a[k, i] * b[k, j])`` for a whole tile of c, whose rows are ``stride`` apart.

    a: ``count`` columns of ROWS numbers; b: ``count`` rows of COLUMNS numbers; both packed, read once from front to back.
    """
    from numba.core import types

    signature = types.void(types.intp, a, b, c, types.intp, types.boolean)
    size = c.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Tile(builder, context.get_data_type(c.dtype), size).emit(*values)
        return context.get_dummy_value()

    return signature, codegen


class Tile:
    """The IR of one tile product: a loop over ``count`` whose accumulators are phi nodes, then the stores."""

    def __init__(self, builder: Any, scalar: Any, size: int):
        from llvmlite import ir
        from numba.core import cgutils

        self.ir, self.builder, self.size = ir, builder, size
        self.rows, columns = tile_shape(size)
        self.lanes = vector_bytes() // size
        self.across = columns // self.lanes
        self.vector = ir.VectorType(scalar, self.lanes)
        self.word = ir.IntType(64)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        self.fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{self.lanes}f{size * 8}")

    def emit(self, count: Any, a: Any, b: Any, c: Any, stride: Any, accumulate: Any) -> None:
        builder = self.builder
        before = builder.block
        loop, after = builder.append_basic_block("sum"), builder.append_basic_block("store")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(self.word)
        k.add_incoming(self.word(0), before)
        zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
        sums = [[builder.phi(self.vector) for _ in range(self.across)] for _ in range(self.rows)]
        new = self._step(sums, k, a, b)
        following = builder.add(k, self.word(1))
        k.add_incoming(following, loop)
        for phis, values in zip(sums, new, strict=True):
            for phi, value in zip(phis, values, strict=True):
                phi.add_incoming(zero, before)
                phi.add_incoming(value, loop)
        self._close(builder.cbranch(builder.icmp_signed("<", following, count), loop, after))
        builder.position_at_end(after)
        if accumulate is None:
            self._store(new, c, stride, False)
            return
        with builder.if_else(accumulate) as (adding, plain):
            with adding:
                self._store(new, c, stride, True)
            with plain:
                self._store(new, c, stride, False)

    def _close(self, branch: Any) -> None:
        """The branch that closes the loop: LLVM may unroll it."""

    def _step(self, sums: list, k: Any, a: Any, b: Any) -> list:
        """One k: a column of a times a row of b. Of the two the shorter stays in registers, the longer comes one by one."""
        row, many, wide = self.row(b, k), range(self.rows), range(self.across)
        new: list = [[None for _ in wide] for _ in many]
        if self.rows < self.across:
            numbers = [self._number(a, k, i) for i in many]
            for j in wide:
                vector = self._load(row, j)
                for i in many:
                    new[i][j] = self.builder.call(self.fma, [numbers[i], vector, sums[i][j]])
            return new
        vectors = [self._load(row, j) for j in wide]
        for i in many:
            number = self._number(a, k, i)
            for j in wide:
                new[i][j] = self.builder.call(self.fma, [number, vectors[j], sums[i][j]])
        return new

    def _number(self, a: Any, k: Any, i: int) -> Any:
        """Number i of column k of a, in all lanes."""
        return self._splat(self.builder.load(self.number(a, k, i)))

    def number(self, a: Any, k: Any, i: int) -> Any:
        """Where number i of column k of a is."""
        column = self.builder.gep(a, [self.builder.mul(k, self.word(self.rows))])
        return self.builder.gep(column, [self.word(i)])

    def row(self, b: Any, k: Any) -> Any:
        """Where row k of b begins."""
        return self.builder.gep(b, [self.builder.mul(k, self.word(self.across * self.lanes))])

    def _store(self, sums: list, c: Any, stride: Any, adding: bool) -> None:
        builder = self.builder
        for i, values in enumerate(sums):
            row = builder.gep(c, [builder.mul(stride, self.word(i))])
            for j, value in enumerate(values):
                total = builder.fadd(value, self._load(row, j)) if adding else value
                builder.store(total, self._address(row, j), align=self.size)

    def _address(self, row: Any, j: int) -> Any:
        return self.builder.bitcast(self.builder.gep(row, [self.word(j * self.lanes)]), self.vector.as_pointer())

    def _load(self, row: Any, j: int) -> Any:
        return self.builder.load(self._address(row, j), align=self.size)

    def _splat(self, number: Any) -> Any:
        ir, builder = self.ir, self.builder
        blank = ir.Constant(self.vector, ir.Undefined)
        first = builder.insert_element(blank, number, ir.IntType(32)(0))
        return builder.shuffle_vector(
            first, blank, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        )

    def _pick(self, a: Any, b: Any, places: list) -> Any:
        """A vector of the lanes ``places`` of a, or, counted on, of b."""
        ir = self.ir
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), places))
