"""Writing past the cache: outputs that will have left it before anyone reads them.

An ordinary store to a line that is not in the cache first reads the line, so writing an array costs its bytes twice, and
puts out what would have been read again. A non-temporal store of a whole line does neither: a copy between arrays in
memory takes two thirds of the time, and what a kernel reads more than once stays. In the cache ordinary stores are faster,
so wrappers ask ``beyond_cache`` how many bytes the operation touches.

Kernels compute a piece into a few kilobytes of the first-level cache and ``stream`` it from there. Such stores are ordered
for other threads by the next atomic instruction of theirs, and every chunk of ``parallel_for`` is followed by one.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from funcnn.kernels.cpu.compile import device_function, intrinsic
from funcnn.kernels.cpu.vector import shift

LINE = 64  # bytes


@cache
def last_cache(root: str = "/sys/devices/system/cpu/cpu0/cache") -> int:
    """Bytes of the largest cache that the system tells of, or 8 MiB where it tells nothing."""
    found = [1 << 23]
    for path in Path(root).glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        if text.rstrip("KM").isdigit():
            found.append(int(text.rstrip("KM")) * unit)
    return max(found[1:] or found)


def beyond_cache(size: int) -> bool:
    """Whether ``size`` bytes, read and written, are more than the last cache holds."""
    return size > last_cache()


@intrinsic(twin=lambda q: 0)
def to_line(typingctx: Any, q: Any) -> Any:
    """How many numbers there are from ``q`` to the next line of the cache."""
    from numba.core import types

    size = q.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = context.get_value_type(types.intp)
        left = builder.and_(builder.neg(builder.ptrtoint(values[0], word)), word(LINE - 1))
        return builder.udiv(left, word(size))

    return types.intp(q), codegen


def _lines_twin(q: Any, p: Any, n: int) -> int:
    line = LINE // q.itemsize
    count = n // line * line
    q[:count] = p[:count]
    return count


@intrinsic(twin=_lines_twin)
def stream_lines(typingctx: Any, q: Any, p: Any, n: Any) -> Any:
    """Copy the whole lines of ``n`` numbers by non-temporal stores to ``q``, where a line begins; returns how many numbers."""
    from numba.core import cgutils, types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        from llvmlite import ir

        q_at, p_at, count = values
        size = q.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_data_type(q.dtype), LINE // size).as_pointer()
        q_at, p_at = builder.bitcast(q_at, kind), builder.bitcast(p_at, kind)
        lines = builder.udiv(count, count.type(LINE // size))
        flag = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, lines) as loop:
            line = builder.load(builder.gep(p_at, [loop.index]), align=size)
            builder.store(line, builder.gep(q_at, [loop.index]), align=LINE).set_metadata("nontemporal", flag)
        return builder.mul(lines, count.type(LINE // size))

    return types.intp(q, p, types.intp), codegen


@device_function
def stream(q, p, n):
    """``q[:n] = p[:n]`` past the cache."""
    head = min(n, to_line(q))
    for i in range(head):
        q[i] = p[i]
    done = head + stream_lines(shift(q, head), shift(p, head), n - head)
    for i in range(done, n):
        q[i] = p[i]
