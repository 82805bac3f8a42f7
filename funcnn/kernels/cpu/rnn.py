"""The simple RNN over a whole sequence, one direction of one layer: forward and backward, one kernel each.

    h' = tanh(x w_ih' + h w_hh' + bias), or relu

(Elman, Cognitive Science 14(2), 1990.) Layouts: x (steps, n, inputs); y, dgates (steps, n, hidden); w_ih (hidden,
inputs), w (hidden, hidden). Tasks are those of
``lstm.py``.
"""

from __future__ import annotations

from funcnn.kernels.cpu.compile import device_function, kernel
from funcnn.kernels.cpu.parallel import parallel_for
from funcnn.kernels.cpu.recurrent import arrive, pack_gates, pack_states, strip_product, task_at, wait_for
from funcnn.kernels.cpu.vector import pointer
from funcnn.kernels.cpu.vmath import tanh


# ---- forward ----------------------------------------------------------------------------------------------------------
@kernel
def rnn_forward(x, w_ih, h0, w, bias, relu, reverse, tiles, units, threads, done, strips, x_strips, scratch, y, hn):
    """Fill y and hn (n, hidden)."""
    steps, _, hidden = y.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_gates, blocks, threads, (strips, w, 1, hidden, units))
    parallel_for(pack_gates, blocks, threads, (x_strips, w_ih, 1, x.shape[2], units))
    args = (blocks, reverse, tiles, units, x, h0, bias, relu, done, strips, x_strips, scratch, y)
    parallel_for(_forward_task, steps * blocks * min(2, tiles), threads, args)
    hn[:] = y[0 if reverse else steps - 1]


@device_function
def _forward_task(task, worker, blocks, reverse, tiles, units, x, h0, bias, relu, done, strips, x_strips, scratch, y):
    steps, n, hidden = y.shape
    size_x = x.shape[2]
    s, half, block, halves = task_at(task, blocks, tiles)
    initial = s == 0
    t = steps - 1 - s if reverse else s
    before = t + 1 if reverse else t - 1
    wait_for(pointer(done, half), s * blocks)
    first = block * units
    have = min(units, hidden - first)
    place = scratch.shape[1] * worker
    b = pointer(bias, first)
    zero = y.dtype.type(0)
    for tile in range(half * tiles // halves, (half + 1) * tiles // halves):
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
            sums = pointer(scratch, place + (row - top) * units)
            out = pointer(y, at)
            if relu:
                for j in range(have):
                    a = b[j] + sums[j]
                    out[j] = zero if a < zero else a
            else:
                for j in range(have):
                    out[j] = tanh(b[j] + sums[j])
    arrive(pointer(done, half))


# ---- backward ---------------------------------------------------------------------------------------------------------
@kernel
def rnn_backward(dy, dhn, y, w, relu, reverse, tiles, units, threads, done, strips, scratch, dgates, dh0):
    """Fill dgates, the gradient before the activation, and dh0."""
    steps, _, hidden = dy.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_states, blocks, threads, (strips, w, units))
    args = (blocks, reverse, tiles, units, dy, dhn, y, relu, done, strips, scratch, dgates, dh0)
    parallel_for(_backward_task, (steps + 1) * blocks * min(2, tiles), threads, args)


@device_function
def _backward_task(task, worker, blocks, reverse, tiles, units, dy, dhn, y, relu, done, strips, scratch, dgates, dh0):
    steps, n, hidden = dy.shape
    s, half, block, halves = task_at(task, blocks, tiles)
    initial, final = s == 0, s == steps
    t = s if reverse else steps - 1 - s
    later = t - 1 if reverse else t + 1
    wait_for(pointer(done, half), s * blocks)
    first = block * units
    have = min(units, hidden - first)
    place = scratch.shape[1] * worker
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for tile in range(half * tiles // halves, (half + 1) * tiles // halves):
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
                g, value, out = pointer(dy, at), pointer(y, at), pointer(dgates, at)
                if relu:
                    for j in range(have):
                        out[j] = zero if value[j] <= zero else g[j] + arrived[j]
                else:
                    for j in range(have):
                        out[j] = (g[j] + arrived[j]) * (one - value[j] * value[j])
    arrive(pointer(done, half))
