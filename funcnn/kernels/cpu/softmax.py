"""Softmax, log-softmax and cross-entropy along the middle axis of (outer, n, inner) arrays.

Three passes over a row of n: its maximum, the sum of exponentials below it (in float64), the result. Taking the maximum
out keeps exponentials at most 1. The exponentials, one a number, are the cost; a row stays in the first-level cache. A row
of minus infinities, and one with plus infinity or NaN, gives NaN, as in PyTorch. Empty rows are left alone.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import device_function, kernel


@device_function
def row_top(x, o, s):
    """The largest of a row; NaN may pass unseen, as it spoils the sum of exponentials anyway."""
    top = x.dtype.type(-np.inf)
    for i in range(x.shape[1]):
        if x[o, i, s] > top:
            top = x[o, i, s]
    return top


@kernel
def softmax_forward(x, y):
    """y = exp(x - max) / sum(exp(x - max)) along axis 1."""
    for o in range(x.shape[0]):
        for s in range(x.shape[2]):
            top = row_top(x, o, s)
            for i in range(x.shape[1]):
                y[o, i, s] = np.exp(x[o, i, s] - top)
            total = np.float64(0)
            for i in range(x.shape[1]):  # no store in a loop that adds: its order may not depend on where y lies
                total += y[o, i, s]
            for i in range(x.shape[1]):
                y[o, i, s] /= total


@kernel
def log_softmax_forward(x, y):
    """y = x - max - log(sum(exp(x - max))) along axis 1."""
    for o in range(x.shape[0]):
        for s in range(x.shape[2]):
            top = row_top(x, o, s)
            total = np.float64(0)
            for i in range(x.shape[1]):
                total += np.exp(x[o, i, s] - top)
            shift = np.log(total)
            for i in range(x.shape[1]):
                y[o, i, s] = x[o, i, s] - top - shift


@kernel
def cross_entropy_forward(x, target, loss, logp, ignore_index):
    """logp = log_softmax(x) along axis 1, loss[n, s] = -logp[n, target[n, s], s]; 0 where the target is ignored."""
    log_softmax_forward(x, logp)
    for n in range(x.shape[0]):
        for s in range(x.shape[2]):
            t = target[n, s]
            loss[n, s] = 0 if t == ignore_index else -logp[n, t, s]


@kernel
def cross_entropy_grad(logp, target, dloss, dx, ignore_index):
    """dx = (exp(logp) - onehot(target)) * dloss; 0 where the target is ignored."""
    for n in range(logp.shape[0]):
        for s in range(logp.shape[2]):
            t = target[n, s]
            if t == ignore_index:
                dx[n, :, s] = 0
                continue
            for c in range(logp.shape[1]):
                dx[n, c, s] = np.exp(logp[n, c, s]) * dloss[n, s]
            dx[n, t, s] -= dloss[n, s]
