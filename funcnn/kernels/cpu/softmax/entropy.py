"""Logsumexp and cross-entropy along the middle axis of (O, N, I) arrays, with their gradients.

Rows and blocks of columns are those of ``softmax.py``, and so is what becomes of infinities and NaN. Forward reads x once;
the gradient, one exponential an element, reads it again.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.softmax.columns import column_tops, column_totals, exponential_columns
from funcnn.kernels.cpu.softmax.rows import below, row_top, row_total
from funcnn.kernels.cpu.softmax.softmax import is_turned, place, room_for, units
from funcnn.kernels.cpu.vector.bits import like
from funcnn.kernels.cpu.vector.functions import exp_below, log
from funcnn.kernels.cpu.vector.instructions import pointer, shift
from funcnn.kernels.cpu.vector.transpose import transpose_narrow


# ---- logsumexp ----------------------------------------------------------------------------------------------------------
@device_function
def _sums(chunk, worker, x, top, rest, room, totals, cut):
    n, inner = x.shape[1], x.shape[2]
    turned = is_turned(x, cut)
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], units(x, cut))):
        start, width = place(x, unit, cut)
        at, p = start // (n * inner) * inner + start % inner, pointer(x, start)
        t, r, m = pointer(top, at), pointer(rest, at), pointer(totals, worker * cut[1])
        if turned:
            e = pointer(room, worker * (n + 4) * cut[1])
            u = shift(e, 4 * cut[1])
            transpose_narrow(p, n, u, cut[1], width, n)
            column_tops(u, cut[1], n, width, t)
            column_totals(u, cut[1], n, width, t, m, e, width)
        elif inner == 1:
            t[0] = row_top(x, start, n)
            m[0] = row_total(x, start, n, t[0])
        else:
            column_tops(p, inner, n, width, t)
            column_totals(p, inner, n, width, t, m, pointer(room, worker * 4 * cut[1]), width)
        for j in range(width):
            r[j] = log(m[j])


@kernel(
    touches={
        "top": lambda x: x.shape[0] * x.shape[2],
        "rest": lambda x: x.shape[0] * x.shape[2],
        "room": lambda x, cut, threads: room_for(x.shape, cut, 4, 1) * threads,
        "totals": lambda cut, threads: threads * cut[1],
    }
)
def log_sums(x, top, rest, room, totals, cut, threads):
    """Writes top = max(x) and rest = log(sum(exp(x - top))) along axis 1, both (O, I): logsumexp is their sum.

    room and totals (threads * cut[1]): scratch of the workers.
    """
    chunks = (units(x, cut) + cut[0] - 1) // cut[0]
    parallel_for(_sums, chunks, threads, (x, top, rest, room, totals, cut))


@kernel(touches={"rest": lambda top: top.size, "out": lambda top: top.size})
def join_sums(top, rest, out):
    """Writes out = top + rest, flat, and top where that is infinite: infinity less infinity was NaN there."""
    p, q, s = pointer(top, 0), pointer(rest, 0), pointer(out, 0)
    for i in range(top.size):
        s[i] = p[i] if abs(p[i]) == np.inf else p[i] + q[i]


# ---- cross-entropy --------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "target": lambda x: x.shape[0] * x.shape[2],
        "top": lambda x: x.shape[0] * x.shape[2],
        "rest": lambda x: x.shape[0] * x.shape[2],
        "loss": lambda x: x.shape[0] * x.shape[2],
    }
)
def cross_entropy_pick(x, target, top, rest, loss, ignore_index, status):
    """Writes loss = -log_softmax(x)[target], given ``log_sums``; 0 where that is ignored. The first that is no class is refused."""
    for o in range(x.shape[0]):
        for s in range(x.shape[2]):
            t = target[o, s]
            if 0 <= t < x.shape[1] and t != ignore_index:
                loss[o, s] = -below(x[o, t, s], top[o, s], rest[o, s])
                continue
            loss[o, s] = 0
            if t != ignore_index and status[0] == 0:
                status[0], status[1], status[2], status[3] = 1, 1, o * x.shape[2] + s, t


@device_function
def _counted(target, ignore_index):
    p, count = pointer(target, 0), 0
    for i in range(target.size):
        count += p[i] != ignore_index
    return count


@kernel(touches={"loss": lambda target: target.size, "out": lambda: 1})
def entropy_total(loss, target, ignore_index, mean, out):
    """Writes out[0], the sum of the losses, or their mean over the targets that are not ignored."""
    p, q, total = pointer(loss, 0), pointer(out, 0), 0.0
    for i in range(target.size):
        total += p[i]
    q[0] = total / _counted(target, ignore_index) if mean else total


@kernel(touches={"dloss": lambda: 1, "scale": lambda target: target.size})
def entropy_scale(dloss, target, ignore_index, mean, scale):
    """Writes to ``scale`` what each loss counts in the gradient: ``dloss[0]``, or for a mean its share."""
    p, q = pointer(dloss, 0), pointer(scale, 0)
    share = p[0] / like(p[0], _counted(target, ignore_index)) if mean else p[0]
    for i in range(target.size):
        q[i] = share


@device_function
def _exponential_row(x, dx, start, n, top, rest, scale):
    p, q = pointer(x, start), pointer(dx, start)
    for i in range(n):
        q[i] = exp_below(below(p[i], top, rest)) * scale


@device_function
def _exponentials(chunk, worker, x, top, rest, scale, dx, target, ignore_index, cut):
    n, inner = x.shape[1], x.shape[2]
    zero = x.dtype.type(0)
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], units(x, cut))):
        start, width = place(x, unit, cut)
        at = start // (n * inner) * inner + start % inner
        t, r, g = pointer(top, at), pointer(rest, at), pointer(scale, at)
        if inner == 1:
            _exponential_row(x, dx, start, n, t[0], r[0], g[0])
        else:
            exponential_columns(pointer(x, start), pointer(dx, start), inner, n, width, t, r, g)
        if target.size:
            hot = pointer(target, at)
            for j in range(width):
                p, q = pointer(x, start + j), pointer(dx, start + j)
                if hot[j] != ignore_index:
                    q[hot[j] * inner] -= g[j]
                else:  # 0, or NaN from the elements, not from the scale
                    for i in range(n):
                        q[i * inner] = exp_below(below(p[i * inner], t[j], r[j])) * zero


@kernel(
    touches={
        "top": lambda x: x.shape[0] * x.shape[2],
        "rest": lambda x: x.shape[0] * x.shape[2],
        "scale": lambda x: x.shape[0] * x.shape[2],
        "dx": lambda x: x.size,
        "target": lambda x, target: x.shape[0] * x.shape[2] if target.size else 0,
    }
)
def exponentials(x, top, rest, scale, dx, target, ignore_index, cut, threads):
    """Writes dx = exp(x - top - rest) * scale along axis 1: the gradient of logsumexp, and of cross-entropy.

    For the latter target (O, I), else empty, names the class that scale is taken from; its dx is 0 where it is ignored
    (NaN where probabilities are, as in PyTorch).
    """
    chunks = (units(x, cut) + cut[0] - 1) // cut[0]
    parallel_for(_exponentials, chunks, threads, (x, top, rest, scale, dx, target, ignore_index, cut))
