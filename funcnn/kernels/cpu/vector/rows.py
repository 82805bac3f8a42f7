"""Short rows copied, cleared, filled, copied with a number added, or their maximum: whole vectors, and one more with a mask for
what is left.

LLVM's own loops over a row take four vectors at a time and the rest number by number, and small fills become calls; a row
of 24 numbers is two vectors here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.instructions import Tile


def _copy_row_twin(target: Any, source: Any, count: int) -> None:
    if count > 0:
        target[:count] = source[:count]


@intrinsic(twin=_copy_row_twin)
def copy_row(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """``target[:count] = source[:count]``; a count below 1 copies nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row(builder, context.get_data_type(source.dtype), source.dtype.bitwidth // 8).emit_copy(*values)
        return context.get_dummy_value()

    return types.void(target, source, types.intp), codegen


def _add_row_twin(target: Any, source: Any, count: int, number: Any) -> None:
    if count > 0:
        target[:count] = source[:count] + number


@intrinsic(twin=_add_row_twin)
def add_row(typingctx: Any, target: Any, source: Any, count: Any, number: Any) -> Any:
    """``target[:count] = source[:count] + number``; a count below 1 writes nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row(builder, context.get_data_type(source.dtype), source.dtype.bitwidth // 8).emit_copy(*values)
        return context.get_dummy_value()

    return types.void(target, source, types.intp, source.dtype), codegen


def _fill_row_twin(target: Any, count: int, number: Any) -> None:
    if count > 0:
        target[:count] = number


@intrinsic(twin=_fill_row_twin)
def fill_row(typingctx: Any, target: Any, count: Any, number: Any) -> Any:
    """``target[:count] = number``; a count below 1 writes nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row(builder, context.get_data_type(target.dtype), target.dtype.bitwidth // 8).emit_clear(*values)
        return context.get_dummy_value()

    return types.void(target, types.intp, target.dtype), codegen


def _clear_row_twin(target: Any, count: int) -> None:
    if count > 0:
        target[:count] = 0


@intrinsic(twin=_clear_row_twin)
def clear_row(typingctx: Any, target: Any, count: Any) -> Any:
    """``target[:count] = 0``; a count below 1 clears nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row(builder, context.get_data_type(target.dtype), target.dtype.bitwidth // 8).emit_clear(*values)
        return context.get_dummy_value()

    return types.void(target, types.intp), codegen


def _largest_twin(source: Any, count: int, sign: Any) -> Any:
    return np.max(source[:count] * sign, initial=-np.inf)


@intrinsic(twin=_largest_twin)
def largest_in_row(typingctx: Any, source: Any, count: Any, sign: Any) -> Any:
    """The maximum of ``source[:count] * sign``, NaN where one is NaN, -inf where there is no number.

    ``maximum`` takes three instructions, and as many for each of the steps that join the lanes. Here NaN is left out of
    the maximum and noted beside it.
    """
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return Row(builder, context.get_data_type(source.dtype), source.dtype.bitwidth // 8).emit_largest(*values)

    return source.dtype(source, types.intp, source.dtype), codegen


class Row(Tile):
    """The IR of what is done to a row."""

    def emit_copy(self, target: Any, source: Any, count: Any, number: Any = None) -> None:
        """A loop over vectors, and a masked one at the end; ``number`` is added to each lane."""
        builder, word = self.builder, self.word
        more = None if number is None else self._splat(number)
        changed = (lambda value: value) if more is None else (lambda value: builder.fadd(value, more))
        whole = builder.and_(count, word(-self.lanes))
        with self._steps(whole) as k:
            value = self._load(builder.gep(source, [k]), 0)
            builder.store(changed(value), self._address(builder.gep(target, [k]), 0), align=self.size)
        rest = builder.and_(builder.icmp_signed(">", count, word(0)), builder.icmp_signed(">", count, whole))
        with builder.if_then(rest):
            mask = self._below(builder.sub(count, whole))
            value = self._masked_load(builder.gep(source, [whole]), mask)
            self._masked_store(changed(value), builder.gep(target, [whole]), mask)

    def emit_clear(self, target: Any, count: Any, number: Any = None) -> None:
        """Masked vectors throughout: of plain ones LLVM makes a call. ``number`` stands in all lanes, else 0."""
        value = self.ir.Constant(self.vector, [0.0] * self.lanes) if number is None else self._splat(number)
        with self._steps(count) as k:
            mask = self._below(self.builder.sub(count, k))
            self._masked_store(value, self.builder.gep(target, [k]), mask)

    def emit_largest(self, source: Any, count: Any, sign: Any) -> Any:
        """Four vectors a step, then one with a mask; each number that is larger replaces its lane's, which NaN is not."""
        from numba.core import cgutils

        ir, builder, least = self.ir, self.builder, self.ir.Constant(self.vector, [float("-inf")] * self.lanes)
        signs, none = self._splat(sign), ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [0] * self.lanes)
        best = [cgutils.alloca_once_value(builder, least) for _ in range(4)]
        odd = cgutils.alloca_once_value(builder, none)

        def join(place: Any, x: Any) -> None:
            old = builder.load(place)
            builder.store(builder.select(builder.fcmp_ordered(">", x, old), x, old), place)
            builder.store(builder.or_(builder.load(odd), builder.fcmp_unordered("uno", x, x)), odd)

        whole = builder.and_(count, self.word(-4 * self.lanes))
        with self._steps(whole, 4) as k:
            row = builder.gep(source, [k])
            for j, place in enumerate(best):
                join(place, builder.fmul(self._load(row, j), signs))
        with self._steps(builder.sub(count, whole)) as k:
            at = builder.add(whole, k)
            mask = self._below(builder.sub(count, at))
            x = builder.fmul(self._masked_load(builder.gep(source, [at]), mask), signs)
            join(best[0], builder.select(mask, x, least))
        for half in (2, 1):
            for j in range(half):
                join(best[j], builder.load(best[j + half]))
        top = self._folded("fmax", builder.load(best[0]), ("nnan", "nsz"))
        return builder.select(self._folded("or", builder.load(odd)), top.type(float("nan")), top)

    def _folded(self, name: str, vector: Any, flags: tuple = ()) -> Any:
        """The lanes of a vector joined."""
        from numba.core import cgutils

        scalar = vector.type.element
        short = f"v{self.lanes}" + (f"f{self.size * 8}" if name == "fmax" else "i1")
        kind = self.ir.FunctionType(scalar, [vector.type])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.vector.reduce.{name}.{short}")
        return self.builder.call(function, [vector], fastmath=flags)

    @contextmanager
    def _steps(self, end: Any, vectors: int = 1) -> Iterator[Any]:
        """A loop over the first numbers of so many vectors below ``end``."""
        from numba.core import cgutils

        step = self.word(vectors * self.lanes)
        with cgutils.for_range_slice(self.builder, self.word(0), end, step, inc=True) as (k, _):
            yield k

    def _below(self, count: Any) -> Any:
        """The mask of lanes 0 to count - 1."""
        ir, lane = self.ir, self.ir.IntType(32)
        kind = ir.VectorType(lane, self.lanes)
        blank = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(blank, self.builder.trunc(count, lane), lane(0))
        spread = self.builder.shuffle_vector(first, blank, ir.Constant(kind, [0] * self.lanes))
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(self.lanes))), spread)

    def _masked(self, name: str, result: Any, arguments: list) -> Any:
        from numba.core import cgutils

        kind = self.ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.masked.{name}.v{self.lanes}f{self.size * 8}.p0"
        )
        return self.builder.call(function, arguments)

    def _masked_load(self, source: Any, mask: Any) -> Any:
        place, zero = self._address(source, 0), self.ir.Constant(self.vector, [0.0] * self.lanes)
        return self._masked("load", self.vector, [place, self.ir.IntType(32)(self.size), mask, zero])

    def _masked_store(self, value: Any, target: Any, mask: Any) -> None:
        place = self._address(target, 0)
        self._masked("store", self.ir.VoidType(), [value, place, self.ir.IntType(32)(self.size), mask])
