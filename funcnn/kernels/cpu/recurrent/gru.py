"""GRU over a whole sequence, one direction of one layer: forward and backward, one kernel each.

    r, z = sigmoid of x w_ih' + b_ih + h w_hh' + b_hh;  m = h w_hn' + b_hn;  n = tanh(x w_in' + b_in + r m);  h' = n + z (h - n)

(Cho et al., arXiv:1406.1078, with the reset after the product, as cuDNN has it.) Layouts: x (steps, rows, inputs);
gates, dx, dgates (steps, rows, 3 hidden) in the order r z n; y and inner, which holds m, (steps, rows, hidden); w_ih (3
hidden, inputs), w (3 hidden, hidden). ``dx`` is the gradient of the products with x, ``dgates`` of those with the
state, which differs in n by the factor r. Tasks are those of ``lstm.py``.
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
        "w_ih": lambda x, y: 3 * y.shape[2] * x.shape[2],
        "h0": lambda y: y.shape[1] * y.shape[2],
        "w": lambda y: 3 * y.shape[2] * y.shape[2],
        "b_ih": lambda y: 3 * y.shape[2],
        "b_hh": lambda y: 3 * y.shape[2],
        "done": lambda: 3,
        "strips": lambda units, y: -(-y.shape[2] // units) * units * 3 * y.shape[2],
        "x_strips": lambda x, units, y: -(-y.shape[2] // units) * units * 3 * x.shape[2],
        "scratch": lambda tiles, units, threads, y: threads * -(-y.shape[1] // tiles) * 4 * units,
        "hn": lambda y: y.shape[1] * y.shape[2],
        "gates": lambda y: 3 * y.size,
        "inner": lambda y: y.size,
    }
)
def gru_forward(
    x, w_ih, h0, w, b_ih, b_hh, reverse, tiles, units, threads, done, strips, x_strips, scratch, y, hn, gates, inner
):
    """Fill y, hn (rows, hidden) and what backward reads: the gates' values and the inner products of every step."""
    steps, _, hidden = y.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_gates, blocks * 3, threads, (strips, w, 3, hidden, units))
    parallel_for(pack_gates, blocks * 3, threads, (x_strips, w_ih, 3, x.shape[2], units))
    args = (blocks, reverse, tiles, units, x, h0, b_ih, b_hh, done, strips, x_strips, scratch, y, gates, inner)
    parallel_for(_forward_task, steps * blocks * min(2, tiles), threads, args)
    copy_row(pointer(hn, 0), pointer(y, 0 if reverse else (steps - 1) * hn.size), hn.size)


@device_function
def _forward_task(chunk, worker, blocks, reverse, tiles, units, x, h0, b_ih, b_hh, done, strips, x_strips, scratch, y, gates,
                  inner):  # fmt: skip
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
        for gate in range(3):
            sums, strip = pointer(scratch, place + gate * size), (block * 3 + gate) * units
            strip_product(rows, units, hidden, h, hidden, pointer(strips, strip * hidden), sums, False)
            apart = gate == 2  # the reset gate scales what the states give to n, but not what x gives
            sums = pointer(scratch, place + 3 * size) if apart else sums
            inputs = pointer(x, (t * n + top) * size_x)
            strip_product(rows, units, size_x, inputs, size_x, pointer(x_strips, strip * size_x), sums, not apart)
        for row in range(top, bottom):
            own = row * hidden + first
            at = t * n * hidden + own
            state = pointer(h0, own) if initial else pointer(y, before * n * hidden + own)
            sums = pointer(scratch, place + (row - top) * units)
            values = pointer(gates, (t * n + row) * 3 * hidden + first)
            _gates(have, hidden, size, pointer(b_ih, first), pointer(b_hh, first), sums, state, values, pointer(inner, at),
                   pointer(y, at))  # fmt: skip
    arrive(pointer(done, half))


@apart_function
def _gates(have, hidden, size, b, bh, s, state, gates, inner, y):
    """The gates and states of ``have`` units of one row."""
    for j in range(have):
        r = sigmoid(b[j] + bh[j] + s[j])
        z = sigmoid(b[hidden + j] + bh[hidden + j] + s[size + j])
        m = s[2 * size + j] + bh[2 * hidden + j]
        new = tanh(s[3 * size + j] + b[2 * hidden + j] + r * m)
        gates[j], gates[hidden + j], gates[2 * hidden + j] = r, z, new
        inner[j] = m
        y[j] = new + z * (state[j] - new)


# ---- backward ---------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "dhn": lambda dy: dy.shape[1] * dy.shape[2],
        "gates": lambda dy: 3 * dy.size,
        "inner": lambda dy: dy.size,
        "y": lambda dy: dy.size,
        "h0": lambda dy: dy.shape[1] * dy.shape[2],
        "w": lambda dy: 3 * dy.shape[2] * dy.shape[2],
        "done": lambda: 3,
        "strips": lambda dy, units: -(-dy.shape[2] // units) * units * 3 * dy.shape[2],
        "scratch": lambda dy, tiles, units, threads: threads * -(-dy.shape[1] // tiles) * units,
        "dx": lambda dy: 3 * dy.size,
        "dgates": lambda dy: 3 * dy.size,
        "dh0": lambda dy: dy.shape[1] * dy.shape[2],
    }
)
def gru_backward(
    dy, dhn, gates, inner, y, h0, w, reverse, tiles, units, threads, done, strips, scratch, dx, dgates, dh0
):
    """Fill dx, dgates and dh0; dh0 carries, on the way, the part of the states' gradient that passes by the gates."""
    steps, _, hidden = dy.shape
    blocks = (hidden + units - 1) // units
    parallel_for(pack_states, blocks, threads, (strips, w, units))
    copy_row(pointer(dh0, 0), pointer(dhn, 0), dh0.size)
    args = (blocks, reverse, tiles, units, dy, gates, inner, y, h0, done, strips, scratch, dx, dgates, dh0)
    parallel_for(_backward_task, (steps + 1) * blocks * min(2, tiles), threads, args)


@device_function
def _backward_task(chunk, worker, blocks, reverse, tiles, units, dy, gates, inner, y, h0, done, strips, scratch, dx, dgates,
                   dh0):  # fmt: skip
    steps, n, hidden = dy.shape
    s, half, block, low, high = start_task(blocks, tiles, done)
    initial, final, earliest = s == 0, s == steps, s == steps - 1
    t, later = steps_at(s, steps, not reverse)
    earlier = t + t - later
    first, have = block_of(block, units, hidden)
    place = scratch.shape[1] * worker
    for tile in range(low, high):
        top, bottom = n * tile // tiles, n * (tile + 1) // tiles
        if not initial:
            strip = pointer(strips, block * 3 * hidden * units)
            d = pointer(dgates, (later * n + top) * 3 * hidden)
            strip_product(bottom - top, units, 3 * hidden, d, 3 * hidden, strip, pointer(scratch, place), False)
        for row in range(top, bottom):
            own = row * hidden + first
            dh = pointer(dh0, own)
            if not initial:
                arrived = pointer(scratch, place + (row - top) * units)
                for j in range(have):
                    dh[j] += arrived[j]
            if not final:
                at = t * n * hidden + own
                state = pointer(h0, own) if earliest else pointer(y, earlier * n * hidden + own)
                gates_at = (t * n + row) * 3 * hidden + first
                _gates_back(have, hidden, pointer(dy, at), pointer(gates, gates_at), pointer(inner, at), state, dh,
                            pointer(dx, gates_at), pointer(dgates, gates_at))  # fmt: skip
    arrive(pointer(done, half))


@apart_function
def _gates_back(have, hidden, dy, gates, inner, state, dh, dx, out):
    """Gradients of ``have`` units of one row; ``dh`` goes from this step's states to the step before's."""
    for j in range(have):
        r, z, new = gates[j], gates[hidden + j], gates[2 * hidden + j]
        d = dy[j] + dh[j]
        dh[j] = d * z
        dz = d * (state[j] - new) * (z - z * z)
        kept = d - d * z
        dn = kept - kept * new * new
        dr = dn * inner[j] * (r - r * r)
        dx[j], dx[hidden + j], dx[2 * hidden + j] = dr, dz, dn
        out[j], out[hidden + j], out[2 * hidden + j] = dr, dz, dn * r
