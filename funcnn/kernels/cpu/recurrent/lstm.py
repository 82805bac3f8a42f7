"""LSTM over a whole sequence, one direction of one layer: forward and backward, one kernel each.

    i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of x w_ih' + h w_hh' + bias;  c' = f c + i g;  h' = o tanh(c')

(Hochreiter and Schmidhuber, Neural Computation 9(8), 1997, with forget gates.) The products that give the gradients of
x and of the weights are made after, for all steps at once. Layouts: x (steps, n, inputs); gates, dgates (steps, n, 4
hidden) in the order i f g o; y, cells (steps, n, hidden); w_ih (4 hidden, inputs), w (4 hidden, hidden).

A task is a block of hidden units at one step: the products of the state and of x with the four strips of the block,
into a scratch tile, then its gates, cells and states. Backward it multiplies the step after's dgates with its strip,
which is what arrives at its states, and goes on to their gates. ``done`` are three counters from 0, see ``start_task``.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import apart_function, device_function, kernel
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
from funcnn.kernels.cpu.vector.functions import sigmoid, tanh
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import copy_row


# ---- forward ----------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "x": lambda x, y: y.shape[0] * y.shape[1] * x.shape[2],
        "w_ih": lambda x, y: 4 * y.shape[2] * x.shape[2],
        "h0": lambda y: y.shape[1] * y.shape[2],
        "c0": lambda y: y.shape[1] * y.shape[2],
        "w": lambda y: 4 * y.shape[2] * y.shape[2],
        "bias": lambda y: 4 * y.shape[2],
        "done": lambda: 3,
        "strips": lambda units, y: -(-y.shape[2] // units) * units * 4 * y.shape[2],
        "x_strips": lambda x, units, y: -(-y.shape[2] // units) * units * 4 * x.shape[2],
        "scratch": lambda tiles, units, threads, y: threads * -(-y.shape[1] // tiles) * 4 * units,
        "hn": lambda y: y.shape[1] * y.shape[2],
        "cn": lambda y: y.shape[1] * y.shape[2],
        "gates": lambda y: 4 * y.size,
        "cells": lambda y: y.size,
    }
)
def lstm_forward(
    x, w_ih, h0, c0, w, bias, reverse, tiles, units, threads, done, strips, x_strips, scratch, y, hn, cn, gates, cells
):
    """Fill y, hn, cn (n, hidden) and what backward reads: the gates' values and the cells of every step."""
    steps, _, hidden = y.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_gates, blocks * 4, threads, (strips, w, 4, hidden, units))
    parallel_for(pack_gates, blocks * 4, threads, (x_strips, w_ih, 4, x.shape[2], units))
    args = (blocks, reverse, tiles, units, x, h0, c0, bias, done, strips, x_strips, scratch, y, gates, cells)
    parallel_for(_forward_task, steps * blocks * min(2, tiles), threads, args)
    last = 0 if reverse else (steps - 1) * hn.size
    copy_row(pointer(hn, 0), pointer(y, last), hn.size)
    copy_row(pointer(cn, 0), pointer(cells, last), cn.size)


@device_function
def _forward_task(chunk, worker, blocks, reverse, tiles, units, x, h0, c0, bias, done, strips, x_strips, scratch, y, gates,
                  cells):  # fmt: skip
    steps, n, hidden = y.shape
    size_x = x.shape[2]
    s, half, block, low, high = start_task(blocks, tiles, done)
    t, before = steps_at(s, steps, reverse)
    first, have = block_of(block, units, hidden)
    initial = s == 0
    place = scratch.shape[1] * worker
    for tile in range(low, high):
        top, bottom = n * tile // tiles, n * (tile + 1) // tiles
        rows = bottom - top
        size = rows * units
        h = pointer(h0, top * hidden) if initial else pointer(y, (before * n + top) * hidden)
        for gate in range(4):
            sums, strip = pointer(scratch, place + gate * size), (block * 4 + gate) * units
            strip_product(rows, units, hidden, h, hidden, pointer(strips, strip * hidden), sums, False)
            inputs = pointer(x, (t * n + top) * size_x)
            strip_product(rows, units, size_x, inputs, size_x, pointer(x_strips, strip * size_x), sums, True)
        for row in range(top, bottom):
            own = row * hidden + first
            at = t * n * hidden + own
            c = pointer(c0, own) if initial else pointer(cells, before * n * hidden + own)
            sums = pointer(scratch, place + (row - top) * units)
            values = pointer(gates, (t * n + row) * 4 * hidden + first)
            _gates(have, hidden, size, pointer(bias, first), sums, c, values, pointer(cells, at), pointer(y, at))
    arrive(pointer(done, half))


@apart_function
def _gates(have, hidden, size, b, s, c, gates, cell, y):
    """The gates, cells and states of ``have`` units of one row."""
    for j in range(have):
        i = sigmoid(b[j] + s[j])
        f = sigmoid(b[hidden + j] + s[size + j])
        g = tanh(b[2 * hidden + j] + s[2 * size + j])
        o = sigmoid(b[3 * hidden + j] + s[3 * size + j])
        new = f * c[j] + i * g
        gates[j], gates[hidden + j], gates[2 * hidden + j], gates[3 * hidden + j] = i, f, g, o
        cell[j] = new
        y[j] = o * tanh(new)


# ---- backward ---------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "dhn": lambda dy: dy.shape[1] * dy.shape[2],
        "dcn": lambda dy: dy.shape[1] * dy.shape[2],
        "gates": lambda dy: 4 * dy.size,
        "cells": lambda dy: dy.size,
        "c0": lambda dy: dy.shape[1] * dy.shape[2],
        "w": lambda dy: 4 * dy.shape[2] * dy.shape[2],
        "done": lambda: 3,
        "strips": lambda dy, units: -(-dy.shape[2] // units) * units * 4 * dy.shape[2],
        "scratch": lambda dy, tiles, units, threads: threads * -(-dy.shape[1] // tiles) * units,
        "dgates": lambda dy: 4 * dy.size,
        "dh0": lambda dy: dy.shape[1] * dy.shape[2],
        "dc0": lambda dy: dy.shape[1] * dy.shape[2],
    }
)
def lstm_backward(
    dy, dhn, dcn, gates, cells, c0, w, reverse, tiles, units, threads, done, strips, scratch, dgates, dh0, dc0
):
    """Fill dgates, the gradient of the gates before their activation, dh0 and dc0; dc0 carries the cells' on the way."""
    steps, _, hidden = dy.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_states, blocks, threads, (strips, w, units))
    copy_row(pointer(dc0, 0), pointer(dcn, 0), dc0.size)
    args = (blocks, reverse, tiles, units, dy, dhn, gates, cells, c0, done, strips, scratch, dgates, dh0, dc0)
    parallel_for(_backward_task, (steps + 1) * blocks * min(2, tiles), threads, args)


@device_function
def _backward_task(chunk, worker, blocks, reverse, tiles, units, dy, dhn, gates, cells, c0, done, strips, scratch, dgates, dh0,
                   dc0):  # fmt: skip
    steps, n, hidden = dy.shape
    s, half, block, low, high = start_task(blocks, tiles, done)
    initial, final, earliest = s == 0, s == steps, s == steps - 1
    t, later = steps_at(s, steps, not reverse)
    earlier = t + t - later
    first, have = block_of(block, units, hidden)
    strip = pointer(strips, block * 4 * hidden * units)
    for tile in range(low, high):
        top, bottom = n * tile // tiles, n * (tile + 1) // tiles
        place = scratch.shape[1] * worker
        if not initial:
            d = pointer(dgates, (later * n + top) * 4 * hidden)
            strip_product(bottom - top, units, 4 * hidden, d, 4 * hidden, strip, pointer(scratch, place), False)
        for row in range(top, bottom):
            own = row * hidden + first
            arrived = pointer(dhn, own) if initial else pointer(scratch, place + (row - top) * units)
            if final:
                out = pointer(dh0, own)
                for j in range(have):
                    out[j] = arrived[j]
            else:
                at = t * n * hidden + own
                c_before = pointer(c0, own) if earliest else pointer(cells, earlier * n * hidden + own)
                gates_at = (t * n + row) * 4 * hidden + first
                _gates_back(have, hidden, arrived, pointer(dy, at), pointer(gates, gates_at), pointer(cells, at), c_before,
                            pointer(dc0, own), pointer(dgates, gates_at))  # fmt: skip
    arrive(pointer(done, half))


@apart_function
def _gates_back(have, hidden, arrived, dy, gates, cell, before, dc, out):
    """Gradients of ``have`` units of one row; ``dc`` goes from this step's cells to the step before's."""
    for j in range(have):
        i, f, g, o = gates[j], gates[hidden + j], gates[2 * hidden + j], gates[3 * hidden + j]
        tc = tanh(cell[j])
        dh = dy[j] + arrived[j]
        d = dc[j] + dh * (o - o * tc * tc)
        out[j] = d * g * (i - i * i)
        out[hidden + j] = d * before[j] * (f - f * f)
        out[2 * hidden + j] = d * (i - i * g * g)
        out[3 * hidden + j] = dh * tc * (o - o * o)
        dc[j] = d * f
