"""The product of the recurrent kernels: a few rows of hidden state against weights that are packed once a call.

Every step of LSTM, GRU and RNN multiplies the (n, k) state by the same (k, gates * hidden) weights, forward, and the
(n, gates * hidden) gradients of the gates by (gates * hidden, k) ones, backward. The weights are packed into strips:
for each block of UNITS hidden units a matrix (k, UNITS), read front to back. A register tile of ROWS x UNITS takes the
state as it lies, with rows ``step`` apart; up to 14 rows in one tile, so the strip, which comes from the L2 cache, is
read once for all of them. A block of units is a task of parallel work: its gates, cells and states depend on no other
block of the same step. All tasks of all steps are one parallel loop, each of whose chunks takes the next task in order;
a task waits until those of the step before have arrived. Whoever holds the first unfinished task never waits, so this
cannot lock, however few threads really run, and a step costs a tenth of a microsecond more where a parallel loop of its
own would cost two. Rows know nothing of each other, so two halves of them, each with its own counter, take turns: the
last task of a step is awaited while the other half goes on.

Cost of a step: 2 n k gates hidden flops; k * gates * hidden elements read from L2 for each 14 rows of n. With one to three rows
the tile is wider, for four vectors are needed to keep enough loads and multiply-adds in flight.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, intrinsic
from funcnn.kernels.cpu.machine import tile_shape, vector_bytes
from funcnn.kernels.cpu.vector.instructions import Tile, pointer, shift
from funcnn.kernels.cpu.vector.rows import clear_row, copy_row
from funcnn.kernels.cpu.vector.transpose import transpose

WIDE_VECTORS = 4  # vectors across a tile of at most WIDE_ROWS rows
NARROW_VECTORS = 2  # vectors across a tile of more rows
WIDE_ROWS = 3
SPILLING_ROWS = (
    12  # of a tile for which LLVM keeps too many addresses, and spills: half to three quarters of the others' speed
)
LOOKS = 5000  # looks at a counter, some ten microseconds


@cache
def most_rows(itemsize: int) -> int:
    """Returns rows of the tallest tile: with 32 registers 14 x 2 sums, 2 elements of the strip and 1 of the state, with 16 6 x 2."""
    return 14 if tile_shape(itemsize)[0] == 8 else 6


def blocking(n: int, itemsize: int) -> tuple[int, int]:
    """Returns how many row tiles n rows are cut into, and how many UNITS make a block: by the shape and the CPU alone."""
    lanes = vector_bytes() // itemsize
    tiles = max(1, -(-n // most_rows(itemsize)))
    while SPILLING_ROWS in (n // tiles, -(-n // tiles)):
        tiles += 1
    return tiles, lanes * (WIDE_VECTORS if n <= WIDE_ROWS else NARROW_VECTORS)


# ---- packing ----------------------------------------------------------------------------------------------------------
@device_function
def pack_gates(chunk, worker, strips, w, gates, k, units):
    """Works on strip ``chunk`` of forward: of a gate of a block of units, ``strip[i, j]`` is the weight from state i to unit j."""
    hidden = w.shape[0] // gates
    first, have = block_of(chunk // gates, units, hidden)
    p = pointer(strips, chunk * k * units)
    q = pointer(w, (chunk % gates * hidden + first) * k)
    transpose(q, k, p, units, have, k)
    for i in range(k):
        clear_row(shift(p, i * units + have), units - have)


@device_function
def pack_states(block, worker, strips, w, units):
    """Strip ``block`` of backward: columns of w (rows, k), those of one block of states."""
    rows, k = w.shape
    first, have = block_of(block, units, k)
    p = pointer(strips, block * rows * units)
    q = pointer(w, first)
    for i in range(rows):
        copy_row(shift(p, i * units), shift(q, i * k), have)
        clear_row(shift(p, i * units + have), units - have)


# ---- steps ------------------------------------------------------------------------------------------------------------
def _take_twin(counter: Any) -> int:
    counter[0] += 1
    return int(counter[0]) - 1


@intrinsic(twin=_take_twin)
def take(typingctx: Any, counter: Any) -> Any:
    """Takes the next number: 0 for whoever asks first."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", values[0], context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), codegen


def _arrive_twin(counter: Any) -> None:
    counter[0] += 1


@intrinsic(twin=_arrive_twin)
def arrive(typingctx: Any, counter: Any) -> Any:
    """Counts a finished task; what it wrote is seen by those that wait for it."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.atomic_rmw("add", values[0], context.get_constant(types.int64, 1), "release")
        return context.get_dummy_value()

    return types.void(counter), codegen


@intrinsic(twin=lambda counter, count: None)
def wait_for(typingctx: Any, counter: Any, count: Any) -> Any:
    """Goes on when ``count`` tasks have arrived."""
    from numba.core import types

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _emit_wait(builder, *values)
        return context.get_dummy_value()

    return types.void(counter, types.intp), codegen


def _emit_wait(builder: Any, counter: Any, count: Any) -> None:
    """Looks LOOKS times; then offers the core between looks, for on a busy machine the one waited for may be queueing for it."""
    from llvmlite import ir
    from numba.core import cgutils

    look, again, offer, done = (builder.append_basic_block(name) for name in ("look", "again", "offer", "arrived"))
    before = builder.block
    builder.branch(look)
    builder.position_at_end(look)
    looks = builder.phi(count.type)
    looks.add_incoming(count.type(0), before)
    seen = builder.load_atomic(counter, "acquire", 8)
    builder.cbranch(builder.icmp_signed("<", seen, count), again, done)
    builder.position_at_end(again)
    more = builder.add(looks, count.type(1))
    looks.add_incoming(more, again)
    builder.cbranch(builder.icmp_signed("<", more, count.type(LOOKS)), look, offer)
    builder.position_at_end(offer)
    if sys.platform != "win32":
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
    looks.add_incoming(more, offer)
    builder.branch(look)
    builder.position_at_end(done)


@device_function
def start_task(blocks, tiles, done):
    """``(step, half, block, low, high)`` of the next task, once those of the step before have arrived.

    done: how many tasks of each half have arrived, and how many were taken. A task is a block of units for the row
    tiles ``low`` to ``high``: for one half of them, if there are several, and then the other.
    """
    halves, task = min(2, tiles), take(pointer(done, 2))
    step, half, block = task // (blocks * halves), task // blocks % halves, task % blocks
    wait_for(pointer(done, half), step * blocks)
    return step, half, block, half * tiles // halves, (half + 1) * tiles // halves


@device_function
def block_of(block, units, hidden):
    """Returns the first unit of a block, and how many it has."""
    return block * units, min(units, hidden - block * units)


@device_function
def steps_at(s, steps, reverse):
    """Returns where step ``s`` of the recurrence stands in the sequence, and the one before it."""
    return (steps - 1 - s, steps - s) if reverse else (s, s - 1)


# ---- the tile ---------------------------------------------------------------------------------------------------------
@device_function
def strip_product(rows, units, count, a, step, b, c, add):
    """Writes ``c[i, j] (+)= sum(a[i * step + k] * b[k, j])`` for ``rows`` rows and ``units`` columns, which b and c are wide.

    A function, so that its tiles of all heights stand once in a kernel that multiplies the states and x.
    """
    tile_strip(rows, units, count, a, step, b, c, add)


def _strip_twin(rows: int, units: int, count: int, a: Any, step: int, b: Any, c: Any, add: bool) -> None:
    left = np.lib.stride_tricks.as_strided(a, (rows, count), (step * a.itemsize, a.itemsize))
    product = (left @ b[: count * units].reshape(count, units)).reshape(-1)
    c[: rows * units] = c[: rows * units] + product if add else product


@intrinsic(twin=_strip_twin)
def tile_strip(typingctx: Any, rows: Any, units: Any, count: Any, a: Any, step: Any, b: Any, c: Any, add: Any) -> Any:
    """``strip_product`` as a switch over tiles."""
    from numba.core import types

    size = c.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _emit_cases(builder, context.get_data_type(c.dtype), size, values)
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, index, index, a, index, b, c, types.boolean), codegen


def _emit_cases(builder: Any, scalar: Any, size: int, values: Any) -> None:
    """One tile for every height, chosen by ``rows`` and by how wide the strips are."""
    rows, units, count, a, step, b, c, add = values
    lanes, tallest = vector_bytes() // size, most_rows(size)
    cases = [(r, WIDE_VECTORS) for r in range(1, WIDE_ROWS + 1)] + [
        (r, NARROW_VECTORS) for r in range(WIDE_ROWS, tallest + 1)
    ]
    done, nothing = builder.append_basic_block("done"), builder.append_basic_block("no_rows")
    chosen = builder.add(builder.mul(units, units.type(tallest + 1)), rows)
    switch = builder.switch(chosen, nothing)
    for height, across in cases:
        block = builder.append_basic_block(f"rows_{height}x{across}")
        switch.add_case(units.type(lanes * across * (tallest + 1) + height), block)
        builder.position_at_end(block)
        Strip(builder, scalar, size, height, across, step).emit(count, a, b, c, units.type(lanes * across), add)
        builder.branch(done)
    builder.position_at_end(nothing)
    builder.branch(done)
    builder.position_at_end(done)


class Strip(Tile):
    """A tile of any height whose rows of a lie as they are, ``step`` apart."""

    def __init__(self, builder: Any, scalar: Any, size: int, rows: int, across: int, step: Any):
        super().__init__(builder, scalar, size)
        self.rows, self.across = rows, across
        self.starts = [builder.mul(step, self.word(i)) for i in range(rows)]

    def close(self, branch: Any) -> None:
        """Keeps LLVM from unrolling: it would load both steps' elements first, and spill 18 of 32 registers."""
        module = self.builder.module
        disabled = module.add_metadata(["llvm.loop.unroll.disable"])
        loop = self.ir.MDValue(module, [disabled], name=str(len(module.metadata)))
        loop.operands = loop, disabled  # a loop's node begins with itself
        branch.set_metadata("llvm.loop", loop)

    def element(self, a: Any, k: Any, i: int) -> Any:
        return self.builder.gep(a, [self.builder.add(self.starts[i], k)])
