"""Writing past the cache: outputs that will have left it before anyone reads them.

An ordinary store to a line that is not in the cache first reads the line, so writing an array costs its bytes twice, and
puts out what would have been read again. A non-temporal store of a whole line does neither: a copy between arrays in
memory takes two thirds of the time, and what a kernel reads more than once stays. In the cache ordinary stores are faster,
so wrappers ask ``beyond_cache`` how many bytes the operation touches.

Kernels compute a piece into a few kilobytes of the first-level cache and ``stream`` it from there. Such stores are ordered
for other threads by the next atomic instruction of theirs, and every chunk of ``parallel_for`` is followed by one.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import device_function, intrinsic
from funcnn.kernels.cpu.vector.instructions import shift
from funcnn.kernels.cpu.vector.rows import add_row
from funcnn.kernels.cpu.vector.writer import Writer

LINE_BYTES = 64  # of a line of the cache


@intrinsic(twin=lambda q: 0)
def to_line(typingctx: Any, q: Any) -> Any:
    """Computes how many elements there are from ``q`` to the next line of the cache."""
    from numba.core import types

    size = q.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = context.get_value_type(types.intp)
        left = builder.and_(builder.neg(builder.ptrtoint(values[0], word)), word(LINE_BYTES - 1))
        return builder.udiv(left, word(size))

    return types.intp(q), codegen


def _lines_twin(q: Any, p: Any, n: int, number: Any = None) -> int:
    line = LINE_BYTES // q.itemsize
    count = n // line * line
    q[:count] = p[:count] if number is None else p[:count] + number
    return count


def _emit_lines(context: Any, builder: Any, array: Any, values: Any) -> Any:
    """Writes a loop over lines: loads, perhaps an addition, non-temporal stores."""
    from numba.core import cgutils

    q_at, p_at, count, *number = values
    size = array.dtype.bitwidth // 8
    lines = Writer.of(context, builder, array, LINE_BYTES // size)
    flag = builder.module.add_metadata([lines.ir.IntType(32)(1)])
    more = [lines.splat(one) for one in number]
    q_at, p_at = lines.address(q_at), lines.address(p_at)
    many = builder.udiv(count, count.type(lines.lanes))
    with cgutils.for_range(builder, many) as loop:
        line = builder.load(builder.gep(p_at, [loop.index]), align=size)
        for one in more:
            line = builder.fadd(line, one)
        builder.store(line, builder.gep(q_at, [loop.index]), align=LINE_BYTES).set_metadata("nontemporal", flag)
    return builder.mul(many, count.type(lines.lanes))


@intrinsic(twin=_lines_twin)
def stream_lines(typingctx: Any, q: Any, p: Any, n: Any) -> Any:
    """Copies the whole lines of ``n`` elements by non-temporal stores to ``q``, where a line begins; returns how many elements."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _emit_lines(context, builder, q, values)

    return types.intp(q, p, types.intp), codegen


@intrinsic(twin=_lines_twin)
def add_lines(typingctx: Any, q: Any, p: Any, n: Any, number: Any) -> Any:
    """Does what ``stream_lines`` does, with ``number`` added to each element."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _emit_lines(context, builder, q, values)

    return types.intp(q, p, types.intp, q.dtype), codegen


@device_function
def stream(q, p, n):
    """Copies ``q[:n] = p[:n]`` past the cache."""
    head = min(n, to_line(q))
    for i in range(head):
        q[i] = p[i]
    done = head + stream_lines(shift(q, head), shift(p, head), n - head)
    for i in range(done, n):
        q[i] = p[i]


@device_function
def stream_sum(q, p, n, number):
    """Writes ``q[:n] = p[:n] + number`` past the cache."""
    head = min(n, to_line(q))
    add_row(q, p, head, number)
    done = head + add_lines(shift(q, head), shift(p, head), n - head, number)
    add_row(shift(q, done), shift(p, done), n - done, number)


@intrinsic(twin=lambda p: None)
def prefetch(typingctx: Any, p: Any) -> Any:
    """Asks for the line at ``p`` in the second-level cache."""
    from numba.core import cgutils, types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        from llvmlite import ir

        word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.bitcast(values[0], byte), word(0), word(2), word(1)])
        return context.get_dummy_value()

    return types.void(p), codegen
