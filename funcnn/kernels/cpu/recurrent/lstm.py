"""LSTM over a whole sequence, one direction of one layer: forward and backward, one kernel each.

    i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of x w_ih' + h w_hh' + bias;  c' = f c + i g;  h' = o tanh(c')

(Hochreiter and Schmidhuber, Neural Computation 9(8), 1997, with forget gates.) The products that give the gradients of
x and of the weights are made after, for all steps at once. Layouts: x (steps, n, inputs); gates, dgates (steps, n, 4
hidden) in the order i f g o; y, cells (steps, n, hidden). The loop over the steps is ``sequence.py``'s, and so are the strips.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import apart_function, device_function, kernel
from funcnn.kernels.cpu.recurrent.sequence import backward, forward, strips_size
from funcnn.kernels.cpu.vector.functions import sigmoid, tanh
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import copy_row


# ---- forward ----------------------------------------------------------------------------------------------------------
@device_function
def _row(have, hidden, size, initial, first, places, sums, h0, y, own, made):
    own_at, at, before_at, gates_at = places
    (c0, bias, kept), (gates, cells) = own, made
    cell_at = at
    if not kept:  # the cells of two steps in turn, and the gates of one
        step = (at - own_at) // max(c0.size, 1)
        cell_at, before_at = own_at + step % 2 * c0.size, own_at + (step + 1) % 2 * c0.size
        gates_at -= 4 * (at - own_at)
    c = pointer(c0, own_at) if initial else pointer(cells, before_at)
    values = pointer(gates, gates_at)
    _gates(have, hidden, size, pointer(bias, first), sums, c, values, pointer(cells, cell_at), pointer(y, at))


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


run_forward = forward("lstm_steps", 4, _row)


@kernel(
    touches={
        "x": lambda x, y: y.shape[0] * y.shape[1] * x.shape[2],
        "h0": lambda y: y.shape[1] * y.shape[2],
        "c0": lambda y: y.shape[1] * y.shape[2],
        "bias": lambda y: 4 * y.shape[2],
        "done": lambda: 3,
        "strips": lambda units, y: strips_size(units, y.shape[2], 4, y.shape[2]),
        "x_strips": lambda x, units, y: strips_size(units, y.shape[2], 4, x.shape[2]),
        "scratch": lambda tiles, units, threads, y: threads * -(-y.shape[1] // tiles) * 4 * units,
        "hn": lambda y: y.shape[1] * y.shape[2],
        "cn": lambda y: y.shape[1] * y.shape[2],
        "gates": lambda y, kept: 4 * (y.size if kept else y.shape[1] * y.shape[2]),
        "cells": lambda y, kept: y.size if kept else 2 * y.shape[1] * y.shape[2],
    }
)
def lstm_forward(
    x, h0, c0, bias, kept, reverse, tiles, units, threads, done, strips, x_strips, scratch, y, hn, cn, gates, cells
):
    """Fills y, hn, cn (n, hidden) and what backward reads: the gates' values and the cells of every step.

    kept: whether backward will; else gates is scratch for one step, and cells for two.
    """
    own, made = (c0, bias, kept), (gates, cells)
    run_forward(reverse, tiles, units, threads, x, h0, done, strips, x_strips, scratch, y, own, made)
    last = 0 if reverse else (y.shape[0] - 1) * hn.size
    copy_row(pointer(hn, 0), pointer(y, last), hn.size)
    copy_row(pointer(cn, 0), pointer(cells, last if kept else last // max(hn.size, 1) % 2 * hn.size), cn.size)


# ---- backward ---------------------------------------------------------------------------------------------------------
@device_function
def _row_back(have, hidden, initial, earliest, places, arrived, dy, dgates, dh0, own, made):
    own_at, at, before_at, gates_at = places
    gates, cells, c0 = own
    before = pointer(c0, own_at) if earliest else pointer(cells, before_at)
    _gates_back(have, hidden, arrived, pointer(dy, at), pointer(gates, gates_at), pointer(cells, at), before,
                pointer(made[0], own_at), pointer(dgates, gates_at))  # fmt: skip


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


@device_function
def take_arrived(have, arrived, dh0):
    """The gradient of the first states is what arrives at them."""
    for j in range(have):
        dh0[j] = arrived[j]


run_backward = backward("lstm_steps_back", 4, _row_back, take_arrived)


@kernel(
    touches={
        "dhn": lambda dy: dy.shape[1] * dy.shape[2],
        "dcn": lambda dy: dy.shape[1] * dy.shape[2],
        "gates": lambda dy: 4 * dy.size,
        "cells": lambda dy: dy.size,
        "c0": lambda dy: dy.shape[1] * dy.shape[2],
        "done": lambda: 3,
        "strips": lambda dy, units: strips_size(units, dy.shape[2], 4, dy.shape[2]),
        "scratch": lambda dy, tiles, units, threads: threads * -(-dy.shape[1] // tiles) * units,
        "dgates": lambda dy: 4 * dy.size,
        "dh0": lambda dy: dy.shape[1] * dy.shape[2],
        "dc0": lambda dy: dy.shape[1] * dy.shape[2],
    }
)
def lstm_backward(
    dy, dhn, dcn, gates, cells, c0, reverse, tiles, units, threads, done, strips, scratch, dgates, dh0, dc0
):
    """Fills dgates, the gradient of the gates before their activation, dh0 and dc0; dc0 carries the cells' on the way."""
    copy_row(pointer(dc0, 0), pointer(dcn, 0), dc0.size)
    own = (gates, cells, c0)
    run_backward(reverse, tiles, units, threads, dy, dhn, done, strips, scratch, dgates, dh0, own, (dc0,))
