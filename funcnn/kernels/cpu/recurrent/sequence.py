"""The loop that LSTM, GRU and RNN run over a sequence, forward and backward; a cell gives what it does with a row of units.

A task is a block of hidden units at one step (``tasks.py``). Forward it multiplies the states and x with the strips of its
gates into a scratch tile, and hands each row to the cell. Backward it multiplies the step after's gradients of the gates with
its strip, which is what arrives at its states, and hands each row to the cell; after the first step what arrives belongs to
the first states. ``done`` are three counters, see ``start_task``. Layouts: x (steps, n, inputs), y (steps, n, hidden), h0
(n, hidden), gradients of the gates (steps, n, gates hidden).

``own``: arrays and numbers that only this cell reads; ``made``: arrays that only it makes. ``places``: where a row's block
begins in a state, in a sequence of states at this step and at the step before, and in a sequence of gates.
"""

from __future__ import annotations

from typing import Any

from funcnn.kernels.cpu.build.compile import kernel, kernel_from
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.recurrent.tasks import (
    arrive,
    block_of,
    pack_gates,
    pack_states,
    start_task,
    steps_at,
    strip_product,
)
from funcnn.kernels.cpu.vector.instructions import pointer


def strips_size(units: int, hidden: int, gates: int, width: int) -> int:
    """Returns how many elements are in the strips of weights (gates hidden, width), or backward (gates hidden, hidden) with ``width`` hidden."""
    return -(-hidden // units) * units * gates * width


# ---- weights ----------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "strips": lambda w, gates, units: strips_size(units, w.shape[1], gates, w.shape[1]),
        "x_strips": lambda w, w_ih, gates, units: strips_size(units, w.shape[1], gates, w_ih.shape[1]),
        "w_ih": lambda w, w_ih: w.shape[0] * w_ih.shape[1],
    }
)
def pack_forward(w, w_ih, strips, x_strips, gates, units, threads):
    """Packs the strips of w (gates hidden, hidden) and of w_ih (gates hidden, inputs) for the products forward."""
    hidden = w.shape[1]
    chunks = (hidden + units - 1) // units * gates
    parallel_for(pack_gates, chunks, threads, (strips, w, gates, hidden, units))
    parallel_for(pack_gates, chunks, threads, (x_strips, w_ih, gates, w_ih.shape[1], units))


@kernel(touches={"strips": lambda w, units: strips_size(units, w.shape[1], 1, w.shape[0])})
def pack_backward(w, strips, units, threads):
    """Packs the strips of w (gates hidden, hidden) for the products backward."""
    parallel_for(pack_states, (w.shape[1] + units - 1) // units, threads, (strips, w, units))


# ---- forward ----------------------------------------------------------------------------------------------------------
def _forward(reverse, tiles, units, threads, x, h0, done, strips, x_strips, scratch, y, own, made):
    """All steps; ``own`` and ``made`` as above."""
    blocks = (y.shape[2] + units - 1) // units
    done[0] = done[1] = done[2] = 0
    args = (blocks, reverse, tiles, units, x, h0, done, strips, x_strips, scratch, y, own, made)
    parallel_for(task, y.shape[0] * blocks * min(2, tiles), threads, args)  # noqa: F821


def _forward_task(chunk, worker, blocks, reverse, tiles, units, x, h0, done, strips, x_strips, scratch, y, own, made):
    steps, n, hidden = y.shape
    size_x = x.shape[2]
    s, half, block, low, high = start_task(blocks, tiles, done)
    t, before = steps_at(s, steps, reverse)
    first, have = block_of(block, units, hidden)
    initial = s == 0
    place = worker * ((n + tiles - 1) // tiles * units * slots)  # noqa: F821
    for tile in range(low, high):
        top, bottom = n * tile // tiles, n * (tile + 1) // tiles
        rows = bottom - top
        size = rows * units
        h = pointer(h0, top * hidden) if initial else pointer(y, (before * n + top) * hidden)
        inputs = pointer(x, (t * n + top) * size_x)
        for gate in range(gates):  # noqa: F821
            sums, strip = pointer(scratch, place + gate * size), (block * gates + gate) * units  # noqa: F821
            strip_product(rows, units, hidden, h, hidden, pointer(strips, strip * hidden), sums, False)
            alone = gate == apart  # noqa: F821
            sums = pointer(scratch, place + gates * size) if alone else sums  # noqa: F821
            strip_product(rows, units, size_x, inputs, size_x, pointer(x_strips, strip * size_x), sums, not alone)
        for row in range(top, bottom):
            own_at, sums = row * hidden + first, pointer(scratch, place + (row - top) * units)
            gates_at = (t * n + row) * gates * hidden + first  # noqa: F821
            places = (own_at, t * n * hidden + own_at, before * n * hidden + own_at, gates_at)
            cell(have, hidden, size, initial, first, places, sums, h0, y, own, made)  # noqa: F821
    arrive(pointer(done, half))


def forward(name: str, gates: int, cell: Any, apart: int = -1) -> Any:
    """Returns the helper ``_forward`` of a cell of so many gates. apart: the gate for which what x gives is handed over by itself.

    cell: ``(have, hidden, size, initial, first, places, sums, h0, y, own, made)`` fills ``have`` units of a
    row, whose first is ``first``; sums: of each gate ``size`` elements further, last of the one apart.
    """
    given = {"gates": gates, "slots": gates + (apart >= 0), "apart": apart, "cell": cell}
    return kernel_from(_forward, name, task=kernel_from(_forward_task, name + "_task", **given))


# ---- backward ---------------------------------------------------------------------------------------------------------
def _backward(reverse, tiles, units, threads, dy, dhn, done, strips, scratch, dgates, dh0, own, made):
    """All steps, the last first; ``own`` and ``made`` as above."""
    blocks = (dy.shape[2] + units - 1) // units
    done[0] = done[1] = done[2] = 0
    args = (blocks, reverse, tiles, units, dy, dhn, done, strips, scratch, dgates, dh0, own, made)
    parallel_for(task, (dy.shape[0] + 1) * blocks * min(2, tiles), threads, args)  # noqa: F821


def _backward_task(
    chunk, worker, blocks, reverse, tiles, units, dy, dhn, done, strips, scratch, dgates, dh0, own, made
):
    steps, n, hidden = dy.shape
    s, half, block, low, high = start_task(blocks, tiles, done)
    initial, final, earliest = s == 0, s == steps, s == steps - 1
    t, later = steps_at(s, steps, not reverse)
    earlier = t + t - later
    first, have = block_of(block, units, hidden)
    width = gates * hidden  # noqa: F821
    place = worker * ((n + tiles - 1) // tiles * units)
    for tile in range(low, high):
        top, bottom = n * tile // tiles, n * (tile + 1) // tiles
        if not initial:
            d, strip = pointer(dgates, (later * n + top) * width), pointer(strips, block * width * units)
            strip_product(bottom - top, units, width, d, width, strip, pointer(scratch, place), False)
        for row in range(top, bottom):
            own_at = row * hidden + first
            arrived = pointer(dhn, own_at) if initial else pointer(scratch, place + (row - top) * units)
            if final:
                end(have, arrived, pointer(dh0, own_at))  # noqa: F821
            else:
                gates_at = (t * n + row) * width + first
                places = (own_at, t * n * hidden + own_at, earlier * n * hidden + own_at, gates_at)
                cell(have, hidden, initial, earliest, places, arrived, dy, dgates, dh0, own, made)  # noqa: F821
    arrive(pointer(done, half))


def backward(name: str, gates: int, cell: Any, end: Any) -> Any:
    """Returns the helper ``_backward`` of a cell of so many gates.

    cell: ``(have, hidden, initial, earliest, places, arrived, dy, dgates, dh0, own, made)`` fills ``have``
    units of a row of dgates; arrived: what came to their states from the step after. end: ``(have, arrived, dh0)``.
    """
    task = kernel_from(_backward_task, name + "_task", gates=gates, cell=cell, end=end)
    return kernel_from(_backward, name, task=task)
