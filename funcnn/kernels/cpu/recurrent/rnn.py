"""The simple RNN over a whole sequence, one direction of one layer: forward and backward, one kernel each.

    h' = tanh(x w_ih' + h w_hh' + bias), or relu

(Elman, Cognitive Science 14(2), 1990.) Layouts: x (steps, n, inputs); y, dgates (steps, n, hidden); w_ih (hidden,
inputs), w (hidden, hidden). Tasks are those of
``lstm.py``.
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
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.functions import tanh
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.rows import copy_row


# ---- forward ----------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "x": lambda x, y: y.shape[0] * y.shape[1] * x.shape[2],
        "w_ih": lambda x, y: y.shape[2] * x.shape[2],
        "h0": lambda y: y.shape[1] * y.shape[2],
        "w": lambda y: y.shape[2] * y.shape[2],
        "bias": lambda y: y.shape[2],
        "done": lambda: 3,
        "strips": lambda units, y: -(-y.shape[2] // units) * units * y.shape[2],
        "x_strips": lambda x, units, y: -(-y.shape[2] // units) * units * x.shape[2],
        "scratch": lambda tiles, units, threads, y: threads * -(-y.shape[1] // tiles) * units,
        "hn": lambda y: y.shape[1] * y.shape[2],
    }
)
def rnn_forward(x, w_ih, h0, w, bias, relu, reverse, tiles, units, threads, done, strips, x_strips, scratch, y, hn):
    """Fill y and hn (n, hidden)."""
    steps, _, hidden = y.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_gates, blocks, threads, (strips, w, 1, hidden, units))
    parallel_for(pack_gates, blocks, threads, (x_strips, w_ih, 1, x.shape[2], units))
    args = (blocks, reverse, tiles, units, x, h0, bias, relu, done, strips, x_strips, scratch, y)
    parallel_for(_forward_task, steps * blocks * min(2, tiles), threads, args)
    copy_row(pointer(hn, 0), pointer(y, 0 if reverse else (steps - 1) * hn.size), hn.size)


@device_function
def _forward_task(chunk, worker, blocks, reverse, tiles, units, x, h0, bias, relu, done, strips, x_strips, scratch, y):
    steps, n, hidden = y.shape
    size_x = x.shape[2]
    s, half, block, low, high = start_task(blocks, tiles, done)
    t, before = steps_at(s, steps, reverse)
    first, have = block_of(block, units, hidden)
    initial = s == 0
    place = scratch.shape[1] * worker
    for tile in range(low, high):
        top, bottom = n * tile // tiles, n * (tile + 1) // tiles
        h = pointer(h0, top * hidden) if initial else pointer(y, (before * n + top) * hidden)
        sums = pointer(scratch, place)
        strip_product(bottom - top, units, hidden, h, hidden, pointer(strips, block * units * hidden), sums, False)
        inputs = pointer(x, (t * n + top) * size_x)
        strip_product(
            bottom - top, units, size_x, inputs, size_x, pointer(x_strips, block * units * size_x), sums, True
        )
        for row in range(top, bottom):
            at = (t * n + row) * hidden + first
            _states(have, relu, pointer(bias, first), pointer(scratch, place + (row - top) * units), pointer(y, at))
    arrive(pointer(done, half))


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


# ---- backward ---------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "dhn": lambda dy: dy.shape[1] * dy.shape[2],
        "y": lambda dy: dy.size,
        "w": lambda dy: dy.shape[2] * dy.shape[2],
        "done": lambda: 3,
        "strips": lambda dy, units: -(-dy.shape[2] // units) * units * dy.shape[2],
        "scratch": lambda dy, tiles, units, threads: threads * -(-dy.shape[1] // tiles) * units,
        "dgates": lambda dy: dy.size,
        "dh0": lambda dy: dy.shape[1] * dy.shape[2],
    }
)
def rnn_backward(dy, dhn, y, w, relu, reverse, tiles, units, threads, done, strips, scratch, dgates, dh0):
    """Fill dgates, the gradient before the activation, and dh0."""
    steps, _, hidden = dy.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_states, blocks, threads, (strips, w, units))
    args = (blocks, reverse, tiles, units, dy, dhn, y, relu, done, strips, scratch, dgates, dh0)
    parallel_for(_backward_task, (steps + 1) * blocks * min(2, tiles), threads, args)


@device_function
def _backward_task(chunk, worker, blocks, reverse, tiles, units, dy, dhn, y, relu, done, strips, scratch, dgates, dh0):
    steps, n, hidden = dy.shape
    s, half, block, low, high = start_task(blocks, tiles, done)
    initial, final = s == 0, s == steps
    t, later = steps_at(s, steps, not reverse)
    first, have = block_of(block, units, hidden)
    place = scratch.shape[1] * worker
    for tile in range(low, high):
        top, bottom = n * tile // tiles, n * (tile + 1) // tiles
        if not initial:
            strip = pointer(strips, block * hidden * units)
            d = pointer(dgates, (later * n + top) * hidden)
            strip_product(bottom - top, units, hidden, d, hidden, strip, pointer(scratch, place), False)
        for row in range(top, bottom):
            own = row * hidden + first
            arrived = pointer(dhn, own) if initial else pointer(scratch, place + (row - top) * units)
            if final:
                out = pointer(dh0, own)
                for j in range(have):
                    out[j] = arrived[j]
            else:
                at = t * n * hidden + own
                _states_back(have, relu, arrived, pointer(dy, at), pointer(y, at), pointer(dgates, at))
    arrive(pointer(done, half))


@apart_function
def _states_back(have, relu, arrived, dy, y, out):
    """Gradients of ``have`` units of one row before the activation."""
    if relu:
        for j in range(have):
            out[j] = like(y[j], 0) if y[j] <= 0 else dy[j] + arrived[j]
    else:
        for j in range(have):
            out[j] = (dy[j] + arrived[j]) * (like(y[j], 1) - y[j] * y[j])
