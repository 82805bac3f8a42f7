"""The simple RNN over a whole sequence, one direction of one layer: forward and backward, one kernel each.

    h' = tanh(x w_ih' + h w_hh' + bias), or relu

(Elman, Cognitive Science 14(2), 1990.) Layouts: x (steps, n, inputs); y, dgates (steps, n, hidden). The loop over the steps is
``sequence.py``'s, and so are the strips.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import apart_function, device_function, kernel
from funcnn.kernels.cpu.recurrent.lstm import take_arrived
from funcnn.kernels.cpu.recurrent.sequence import backward, forward, strips_size
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.functions import tanh
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import copy_row


# ---- forward ----------------------------------------------------------------------------------------------------------
@device_function
def _row(have, hidden, size, initial, first, places, sums, h0, y, own, made):
    at = places[1]
    bias, relu = own
    _states(have, relu, pointer(bias, first), sums, pointer(y, at))


@apart_function
def _states(have, relu, b, s, y):
    """The states of ``have`` units of one row."""
    if relu:
        for j in range(have):
            a = b[j] + s[j]
            y[j] = like(a, 0) if a < 0 else a
    else:
        for j in range(have):
            y[j] = tanh(b[j] + s[j])


run_forward = forward("rnn_steps", 1, _row)


@kernel(
    touches={
        "x": lambda x, y: y.shape[0] * y.shape[1] * x.shape[2],
        "h0": lambda y: y.shape[1] * y.shape[2],
        "bias": lambda y: y.shape[2],
        "done": lambda: 3,
        "strips": lambda units, y: strips_size(units, y.shape[2], 1, y.shape[2]),
        "x_strips": lambda x, units, y: strips_size(units, y.shape[2], 1, x.shape[2]),
        "scratch": lambda tiles, units, threads, y: threads * -(-y.shape[1] // tiles) * units,
        "hn": lambda y: y.shape[1] * y.shape[2],
    }
)
def rnn_forward(x, h0, bias, relu, reverse, tiles, units, threads, done, strips, x_strips, scratch, y, hn):
    """Fills y and hn (n, hidden)."""
    run_forward(reverse, tiles, units, threads, x, h0, done, strips, x_strips, scratch, y, (bias, relu), ())
    copy_row(pointer(hn, 0), pointer(y, 0 if reverse else (y.shape[0] - 1) * hn.size), hn.size)


# ---- backward ---------------------------------------------------------------------------------------------------------
@device_function
def _row_back(have, hidden, initial, earliest, places, arrived, dy, dgates, dh0, own, made):
    at = places[1]
    y, relu = own
    _states_back(have, relu, arrived, pointer(dy, at), pointer(y, at), pointer(dgates, at))


@apart_function
def _states_back(have, relu, arrived, dy, y, out):
    """Gradients of ``have`` units of one row before the activation."""
    if relu:
        for j in range(have):
            out[j] = like(y[j], 0) if y[j] <= 0 else dy[j] + arrived[j]
    else:
        for j in range(have):
            out[j] = (dy[j] + arrived[j]) * (like(y[j], 1) - y[j] * y[j])


run_backward = backward("rnn_steps_back", 1, _row_back, take_arrived)


@kernel(
    touches={
        "dhn": lambda dy: dy.shape[1] * dy.shape[2],
        "y": lambda dy: dy.size,
        "done": lambda: 3,
        "strips": lambda dy, units: strips_size(units, dy.shape[2], 1, dy.shape[2]),
        "scratch": lambda dy, tiles, units, threads: threads * -(-dy.shape[1] // tiles) * units,
        "dgates": lambda dy: dy.size,
        "dh0": lambda dy: dy.shape[1] * dy.shape[2],
    }
)
def rnn_backward(dy, dhn, y, relu, reverse, tiles, units, threads, done, strips, scratch, dgates, dh0):
    """Fills dgates, the gradient before the activation, and dh0."""
    run_backward(reverse, tiles, units, threads, dy, dhn, done, strips, scratch, dgates, dh0, (y, relu), ())
