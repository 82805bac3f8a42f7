"""Short rows are copied, cleared, filled, copied with a number added, or their maximum found: in whole vectors, and one more with
a mask for what is left.

LLVM's own loops over a row take four vectors at a time and the rest element by element, and small fills become calls; a row
of 24 elements of float32 is two vectors of 512 bits here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import intrinsic
from funcnn.kernels.cpu.vector.writer import Writer


def _copy_row_twin(target: Any, source: Any, count: int) -> None:
    if count > 0:
        target[:count] = source[:count]


@intrinsic(twin=_copy_row_twin)
def copy_row(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Computes ``target[:count] = source[:count]``; a count below 1 copies nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row.of(context, builder, source).emit_copy(*values)
        return context.get_dummy_value()

    return types.void(target, source, types.intp), codegen


def _add_row_twin(target: Any, source: Any, count: int, number: Any) -> None:
    if count > 0:
        target[:count] = source[:count] + number


@intrinsic(twin=_add_row_twin)
def add_row(typingctx: Any, target: Any, source: Any, count: Any, number: Any) -> Any:
    """Computes ``target[:count] = source[:count] + number``; a count below 1 writes nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row.of(context, builder, source).emit_copy(*values)
        return context.get_dummy_value()

    return types.void(target, source, types.intp, source.dtype), codegen


def _fill_row_twin(target: Any, count: int, number: Any) -> None:
    if count > 0:
        target[:count] = number


@intrinsic(twin=_fill_row_twin)
def fill_row(typingctx: Any, target: Any, count: Any, number: Any) -> Any:
    """Computes ``target[:count] = number``; a count below 1 writes nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row.of(context, builder, target).emit_clear(*values)
        return context.get_dummy_value()

    return types.void(target, types.intp, target.dtype), codegen


def _clear_row_twin(target: Any, count: int) -> None:
    if count > 0:
        target[:count] = 0


@intrinsic(twin=_clear_row_twin)
def clear_row(typingctx: Any, target: Any, count: Any) -> Any:
    """Computes ``target[:count] = 0``; a count below 1 clears nothing."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        Row.of(context, builder, target).emit_clear(*values)
        return context.get_dummy_value()

    return types.void(target, types.intp), codegen


def _largest_twin(source: Any, count: int, sign: Any) -> Any:
    return np.max(source[:count] * sign, initial=-np.inf)


@intrinsic(twin=_largest_twin)
def largest_in_row(typingctx: Any, source: Any, count: Any, sign: Any) -> Any:
    """Computes the maximum of ``source[:count] * sign``, NaN where one is NaN, -inf where there is no element.

    ``maximum`` takes three instructions, and as many for each of the steps that join the lanes. Here NaN is left out of
    the maximum and noted beside it.
    """
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return Row.of(context, builder, source).emit_largest(*values)

    return source.dtype(source, types.intp, source.dtype), codegen


class Row(Writer):
    """Writes what is done to a row."""

    def emit_copy(self, target: Any, source: Any, count: Any, number: Any = None) -> None:
        """Writes a loop over vectors, and a masked one at the end; ``number`` is added to each lane."""
        builder, word = self.builder, self.word
        more = None if number is None else self.splat(number)
        changed = (lambda value: value) if more is None else (lambda value: builder.fadd(value, more))
        whole = builder.and_(count, word(-self.lanes))
        with self.steps(whole) as k:
            value = self.load(builder.gep(source, [k]))
            self.store(changed(value), builder.gep(target, [k]))
        rest = builder.and_(builder.icmp_signed(">", count, word(0)), builder.icmp_signed(">", count, whole))
        with builder.if_then(rest):
            mask = self.below(builder.sub(count, whole))
            value = self.masked_load(builder.gep(source, [whole]), mask)
            self.masked_store(changed(value), builder.gep(target, [whole]), mask)

    def emit_clear(self, target: Any, count: Any, number: Any = None) -> None:
        """Writes masked vectors throughout: of plain ones LLVM makes a call. ``number`` is in all lanes, else 0."""
        value = self.same(0.0) if number is None else self.splat(number)
        with self.steps(count) as k:
            mask = self.below(self.builder.sub(count, k))
            self.masked_store(value, self.builder.gep(target, [k]), mask)

    def emit_largest(self, source: Any, count: Any, sign: Any) -> Any:
        """Writes four vectors a step, then one with a mask; an element that is larger replaces its lane's, which NaN is not."""
        from numba.core import cgutils

        builder, least = self.builder, self.same(float("-inf"))
        signs, none = self.splat(sign), self.same(0, self.ir.IntType(1))
        best = [cgutils.alloca_once_value(builder, least) for _ in range(4)]
        odd = cgutils.alloca_once_value(builder, none)

        def join(kept: Any, x: Any) -> None:
            old = builder.load(kept)
            builder.store(builder.select(builder.fcmp_ordered(">", x, old), x, old), kept)
            builder.store(builder.or_(builder.load(odd), builder.fcmp_unordered("uno", x, x)), odd)

        whole = builder.and_(count, self.word(-4 * self.lanes))
        with self.steps(whole, 4) as k:
            row = builder.gep(source, [k])
            for j, kept in enumerate(best):
                join(kept, builder.fmul(self.load(row, j), signs))
        with self.steps(builder.sub(count, whole)) as k:
            at = builder.add(whole, k)
            mask = self.below(builder.sub(count, at))
            x = builder.fmul(self.masked_load(builder.gep(source, [at]), mask), signs)
            join(best[0], builder.select(mask, x, least))
        for half in (2, 1):
            for j in range(half):
                join(best[j], builder.load(best[j + half]))
        top = self._joined("fmax", builder.load(best[0]), ("nnan", "nsz"))
        return builder.select(self._joined("or", builder.load(odd)), top.type(float("nan")), top)

    def _joined(self, name: str, vector: Any, flags: tuple = ()) -> Any:
        """Returns all lanes of a vector joined by an operation."""
        short = f"v{self.lanes}" + (f"f{self.size * 8}" if name == "fmax" else "i1")
        function = self.declared(f"vector.reduce.{name}.{short}", vector.type.element, [vector.type])
        return self.builder.call(function, [vector], fastmath=flags)
