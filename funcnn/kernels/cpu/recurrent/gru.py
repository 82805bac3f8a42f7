"""GRU over a whole sequence, one direction of one layer: forward and backward, one kernel each.

    r, z = sigmoid of x w_ih' + b_ih + h w_hh' + b_hh;  m = h w_hn' + b_hn;  n = tanh(x w_in' + b_in + r m);  h' = n + z (h - n)

(Cho et al., arXiv:1406.1078, with the reset after the product, as cuDNN has it.) Layouts: x (steps, rows, inputs);
gates, dx, dgates (steps, rows, 3 hidden) in the order r z n; y and inner, which holds m, (steps, rows, hidden). ``dx`` is the
gradient of the products with x, ``dgates`` of those with the state, which differs in n by the factor r. The loop over the
steps is ``sequence.py``'s, and so are the strips.
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
    (b_ih, b_hh, kept), (gates, inner) = own, made
    state, earlier = pointer(h0, own_at) if initial else pointer(y, before_at), 0 if kept else at - own_at
    _gates(have, hidden, size, pointer(b_ih, first), pointer(b_hh, first), sums, state, pointer(gates, gates_at - 3 * earlier),
           pointer(inner, at - earlier), pointer(y, at))  # fmt: skip


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


# The reset gate scales what the states give to n, but not what x gives.
run_forward = forward("gru_steps", 3, _row, apart=2)


@kernel(
    touches={
        "x": lambda x, y: y.shape[0] * y.shape[1] * x.shape[2],
        "h0": lambda y: y.shape[1] * y.shape[2],
        "b_ih": lambda y: 3 * y.shape[2],
        "b_hh": lambda y: 3 * y.shape[2],
        "done": lambda: 3,
        "strips": lambda units, y: strips_size(units, y.shape[2], 3, y.shape[2]),
        "x_strips": lambda x, units, y: strips_size(units, y.shape[2], 3, x.shape[2]),
        "scratch": lambda tiles, units, threads, y: threads * -(-y.shape[1] // tiles) * 4 * units,
        "hn": lambda y: y.shape[1] * y.shape[2],
        "gates": lambda y, kept: 3 * (y.size if kept else y.shape[1] * y.shape[2]),
        "inner": lambda y, kept: y.size if kept else y.shape[1] * y.shape[2],
    }
)
def gru_forward(
    x, h0, b_ih, b_hh, kept, reverse, tiles, units, threads, done, strips, x_strips, scratch, y, hn, gates, inner
):
    """Fills y, hn (rows, hidden) and what backward reads: the gates' values and the inner products of every step.

    kept: whether backward will; else both are scratch for one step.
    """
    own, made = (b_ih, b_hh, kept), (gates, inner)
    run_forward(reverse, tiles, units, threads, x, h0, done, strips, x_strips, scratch, y, own, made)
    copy_row(pointer(hn, 0), pointer(y, 0 if reverse else (y.shape[0] - 1) * hn.size), hn.size)


# ---- backward ---------------------------------------------------------------------------------------------------------
@device_function
def _row_back(have, hidden, initial, earliest, places, arrived, dy, dgates, dh0, own, made):
    own_at, at, before_at, gates_at = places
    gates, inner, y, h0 = own
    dh = pointer(dh0, own_at)
    if initial:
        for j in range(have):
            dh[j] = arrived[j]
    else:
        add_arrived(have, arrived, dh)
    state = pointer(h0, own_at) if earliest else pointer(y, before_at)
    _gates_back(have, hidden, pointer(dy, at), pointer(gates, gates_at), pointer(inner, at), state, dh,
                pointer(made[0], gates_at), pointer(dgates, gates_at))  # fmt: skip


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


@device_function
def add_arrived(have, arrived, dh):
    """What arrives through the gates comes to what passed by them."""
    for j in range(have):
        dh[j] += arrived[j]


run_backward = backward("gru_steps_back", 3, _row_back, add_arrived)


@kernel(
    touches={
        "dhn": lambda dy: dy.shape[1] * dy.shape[2],
        "gates": lambda dy: 3 * dy.size,
        "inner": lambda dy: dy.size,
        "y": lambda dy: dy.size,
        "h0": lambda dy: dy.shape[1] * dy.shape[2],
        "done": lambda: 3,
        "strips": lambda dy, units: strips_size(units, dy.shape[2], 3, dy.shape[2]),
        "scratch": lambda dy, tiles, units, threads: threads * -(-dy.shape[1] // tiles) * units,
        "dx": lambda dy: 3 * dy.size,
        "dgates": lambda dy: 3 * dy.size,
        "dh0": lambda dy: dy.shape[1] * dy.shape[2],
    }
)
def gru_backward(dy, dhn, gates, inner, y, h0, reverse, tiles, units, threads, done, strips, scratch, dx, dgates, dh0):
    """Fills dx, dgates and dh0; dh0 carries, on the way, the part of the states' gradient that passes by the gates."""
    own = (gates, inner, y, h0)
    run_backward(reverse, tiles, units, threads, dy, dhn, done, strips, scratch, dgates, dh0, own, (dx,))
