"""Logsumexp and cross-entropy along the middle axis of (O, N, I) arrays, with their gradients.

Rows and blocks of columns are those of ``softmax.py``, and so is what becomes of infinities and NaN. Forward reads x once;
the gradient, one exponential a number, reads it again.
"""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.softmax.rows import below, row_top, row_total
from funcnn.kernels.cpu.softmax.softmax import column_tops, column_totals, place, units
from funcnn.kernels.cpu.vector.functions import exp, log
from funcnn.kernels.cpu.vector.instructions import pointer


# ---- logsumexp ----------------------------------------------------------------------------------------------------------
@device_function
def _sums(chunk, worker, x, top, rest, totals, cut):
    for unit in range(chunk * cut[0], min((chunk + 1) * cut[0], units(x, cut))):
        start, width = place(x, unit, cut)
        n, inner = x.shape[1], x.shape[2]
        at = start // (n * inner) * inner + start % inner
        t, r, m = pointer(top, at), pointer(rest, at), pointer(totals, worker * cut[1])
        if inner == 1:
            t[0] = row_top(x, start, n)
            m[0] = row_total(x, start, n, t[0])
        else:
            column_tops(x, start, inner, n, width, t)
            column_totals(x, start, inner, n, width, t, m)
        for j in range(width):
            r[j] = log(m[j])


@kernel(
    touches={
        "top": lambda x: x.shape[0] * x.shape[2],
        "rest": lambda x: x.shape[0] * x.shape[2],
        "totals": lambda cut, threads: threads * cut[1],
    }
)
def log_sums(x, top, rest, totals, cut, threads):
    """top = max(x) and rest = log(sum(exp(x - top))) along axis 1, both (O, I): logsumexp is their sum."""
    chunks = (units(x, cut) + cut[0] - 1) // cut[0]
    parallel_for(_sums, chunks, threads, (x, top, rest, totals, cut))


# ---- cross-entropy --------------------------------------------------------------------------------------------------------
@kernel(
    touches={
        "target": lambda x: x.shape[0] * x.shape[2],
        "top": lambda x: x.shape[0] * x.shape[2],
        "rest": lambda x: x.shape[0] * x.shape[2],
        "loss": lambda x: x.shape[0] * x.shape[2],
    }
)
def cross_entropy_pick(x, target, top, rest, loss, ignore_index):
    """loss = -log_softmax(x)[target], given ``log_sums``; 0 where the target is ignored."""
    for o in range(x.shape[0]):
        for s in range(x.shape[2]):
            t = target[o, s]
            loss[o, s] = 0 if t == ignore_index else -below(x[o, t, s], top[o, s], rest[o, s])


@device_function
def _exponential_row(x, dx, start, n, top, rest, scale):
    p, q = pointer(x, start), pointer(dx, start)
    for i in range(n):
        q[i] = exp(below(p[i], top, rest)) * scale


@device_function
def _exponential_columns(x, dx, start, width, t, r, g):
    n, step = x.shape[1], x.shape[2]
    for i in range(n):
        p, q = pointer(x, start + i * step), pointer(dx, start + i * step)
        for j in range(width):
            q[j] = exp(below(p[j], t[j], r[j])) * g[j]


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
            _exponential_columns(x, dx, start, width, t, r, g)
        if target.size:
            hot = pointer(target, at)
            for j in range(width):
                p, q = pointer(x, start + j), pointer(dx, start + j)
                if hot[j] != ignore_index:
                    q[hot[j] * inner] -= g[j]
                else:  # 0, or NaN from the numbers, not from the scale
                    for i in range(n):
                        q[i * inner] = exp(below(p[i * inner], t[j], r[j])) * zero


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
    """dx = exp(x - top - rest) * scale along axis 1: the gradient of logsumexp, and of cross-entropy.

    For the latter target (O, I), else empty, names the class that scale is taken from; its dx is 0 where it is ignored
    (NaN where probabilities are, as in PyTorch).
    """
    chunks = (units(x, cut) + cut[0] - 1) // cut[0]
    parallel_for(_exponentials, chunks, threads, (x, top, rest, scale, dx, target, ignore_index, cut))
