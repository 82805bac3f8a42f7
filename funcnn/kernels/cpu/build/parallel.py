"""One way to run a kernel's chunks on several threads.

``parallel_for(body, chunks, threads, args)`` calls ``body(chunk, worker, *args)`` for every chunk. The chunks are cut by
shape alone and each writes its own outputs, so the bits do not depend on the number of threads. Every worker begins with
a share of its own, a run of chunks, so that in a next call, or a next operation, it finds in its core's cache what it left
there; then it helps where something is left, so a slow core does less. A share's next chunk stands in a counter.
``worker`` counts from 0 to threads - 1 and picks the scratch memory. With one thread nothing but a loop runs.

The call is compiled into the kernel: the chunk loop becomes a function that the pool of ``pool.py`` runs on several threads:
about 1 us while its workers spin. The body is called, not inlined, which would compile it twice, and what LLVM moves out of
its loops would not stay in registers.

The first exception of a chunk is raised by the kernel when its loop is over; chunks not yet begun are then left out.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import intrinsic

MOST_SHARES = 64  # at most, whatever the number of threads
LINE_WORDS = 8  # of a cache line, the distance of counters
_CODE, _INFO = 4, 5  # places in the shared block: what the first chunk to raise returned, and what Numba knows of it


def _in_turn(body: Any, chunks: int, threads: int, args: tuple) -> None:
    for chunk in range(chunks):
        body(chunk, 0, *args)


@intrinsic(twin=_in_turn, calls=(0, 3))
def parallel_for(typingctx: Any, body: Any, chunks: Any, threads: Any, args: Any) -> Any:
    """``body(chunk, worker, *args)`` for ``chunk`` in ``range(chunks)`` on ``threads`` threads."""
    from numba.core import types

    inner = body.get_call_type(typingctx, (types.intp, types.intp, *args.types), {})
    compiled = body.dispatcher.overloads[inner.args]

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _emit(context, builder, compiled, args, values[1:])
        return context.get_dummy_value()

    return types.void(body, types.intp, types.intp, args), codegen


def _emit(context: Any, builder: Any, compiled: Any, args: Any, values: Any) -> None:
    """The shared block (shares, chunks, arguments, counters, the first exception) on the stack, and the call of the loop by
    one or many workers."""
    from llvmlite import ir
    from numba.core import callconv, cgutils

    chunks, threads, packed = values
    word = ir.IntType(64)
    shares = builder.select(builder.icmp_signed("<", threads, word(MOST_SHARES)), threads, word(MOST_SHARES))
    raised = [callconv.errcode_t, callconv.excinfo_ptr_t]
    block_type = ir.LiteralStructType([word, word, packed.type, ir.ArrayType(word, LINE_WORDS * MOST_SHARES), *raised])
    block = cgutils.alloca_once(builder, block_type)
    for place, kind in enumerate(raised, _CODE):
        builder.store(kind(0 if place == _CODE else None), _part(builder, block, place))
    for place, value in enumerate((shares, chunks, packed)):
        builder.store(value, _part(builder, block, place))
    with cgutils.for_range(builder, shares) as loop_over:
        share = loop_over.index
        first = builder.sdiv(builder.mul(share, chunks), shares)
        builder.store(first, _part(builder, block, 3, builder.mul(share, word(LINE_WORDS))))
    loop = _worker_loop(context, builder.module, compiled, args, block_type)
    kind = ir.FunctionType(ir.VoidType(), [word, word, word])
    spread = cgutils.get_or_insert_function(builder.module, kind, "funcnn_parallel_for")
    builder.call(spread, [builder.ptrtoint(loop, word), builder.ptrtoint(block, word), threads])
    code, info = (builder.load(_part(builder, block, place)) for place in (_CODE, _INFO))
    status = context.call_conv._get_return_status(builder, code, info)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


def _part(builder: Any, block: Any, *place: Any) -> Any:
    """Returns the address of a part of the shared block."""
    from llvmlite import ir

    index = ir.IntType(32)
    return builder.gep(block, [index(0), index(place[0]), *place[1:]])


def _keep_first(builder: Any, block: Any, status: Any, shares: Any) -> None:
    """Notes the exception unless there is one, and puts all counters behind their last chunks."""
    from llvmlite import ir
    from numba.core import cgutils

    place = _part(builder, block, _CODE)
    before = builder.cmpxchg(place, status.code.type(0), status.code, "monotonic")
    with builder.if_then(builder.extract_value(before, 1)):
        builder.store(status.excinfoptr, _part(builder, block, _INFO))
    with cgutils.for_range(builder, shares) as loop_over:
        counter = _part(builder, block, 3, builder.mul(loop_over.index, ir.IntType(64)(LINE_WORDS)))
        builder.store_atomic(builder.load(_part(builder, block, 1)), counter, "monotonic", 8)


def _worker_loop(context: Any, module: Any, compiled: Any, args: Any, block_type: Any) -> Any:
    """``void loop(intp worker, intp block)``: take chunks until none is left."""
    from llvmlite import ir
    from numba.core import cgutils

    word = ir.IntType(64)
    kind = ir.FunctionType(ir.VoidType(), [word, word])
    function = ir.Function(module, kind, module.get_unique_name("chunks_of_" + compiled.fndesc.llvm_func_name))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    worker = function.args[0]
    block = builder.inttoptr(function.args[1], block_type.as_pointer())
    shares, chunks, packed = (builder.load(_part(builder, block, place)) for place in range(3))
    values = cgutils.unpack_tuple(builder, packed, len(args.types))
    context.active_code_library.add_linking_library(compiled.library)
    callee = context.declare_function(module, compiled.fndesc)
    kinds = compiled.fndesc.restype, compiled.fndesc.argtypes
    with cgutils.for_range(builder, shares) as loop_over:
        share = builder.srem(builder.add(worker, loop_over.index), shares)
        counter = _part(builder, block, 3, builder.mul(share, word(LINE_WORDS)))
        limit = builder.sdiv(builder.mul(builder.add(share, word(1)), chunks), shares)
        take, work, done = (function.append_basic_block(name) for name in ("take", "work", "done"))
        builder.branch(take)
        builder.position_at_end(take)
        chunk = builder.atomic_rmw("add", counter, word(1), "monotonic")
        builder.cbranch(builder.icmp_signed("<", chunk, limit), work, done)
        builder.position_at_end(work)
        call = context.call_conv.call_function(builder, callee, *kinds, [chunk, worker, *values], attrs=("noinline",))
        with cgutils.if_unlikely(builder, call[0].is_error):
            _keep_first(builder, block, call[0], shares)
        builder.branch(take)
        builder.position_at_end(done)
    builder.ret_void()
    return function
