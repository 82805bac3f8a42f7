"""Normalisation of (N, C, S) arrays over N and S for each C: batch norm as it stands, layer norm with N = 1.

Forward: one pass for the mean, one for the squared deviations from it, one to write, so a large mean costs no digits:
6 flops and 3 reads, 1 write a number. Backward: one pass for two dot products, one to write: 8 flops, 4 reads, 1 write.
A channel is finished before the next is begun, so later passes find rows of it in the cache. Sums are kept in float64.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.compile import kernel


@kernel
def normalize_forward(x, y, mean, rstd, var, eps):
    """y = (x - mean) * rstd with the biased variance var and rstd = 1 / sqrt(var + eps)."""
    N, C, S = x.shape
    for c in range(C):
        total = np.float64(0)
        for n in range(N):
            for s in range(S):
                total += x[n, c, s]
        mu = total / (N * S)
        total = np.float64(0)
        for n in range(N):
            for s in range(S):
                off = x[n, c, s] - mu
                total += off * off
        spread = total / (N * S)
        scale = 1.0 / np.sqrt(spread + eps)
        mean[c], var[c], rstd[c] = mu, spread, scale
        for n in range(N):
            for s in range(S):
                y[n, c, s] = (x[n, c, s] - mu) * scale


@kernel
def normalize_grad(dy, y, rstd, dx):
    """dx = rstd * (dy - mean(dy) - y * mean(dy * y)), the means over N and S."""
    N, C, S = dy.shape
    for c in range(C):
        plain, along = np.float64(0), np.float64(0)
        for n in range(N):
            for s in range(S):
                plain += dy[n, c, s]
                along += dy[n, c, s] * y[n, c, s]
        plain /= N * S
        along /= N * S
        for n in range(N):
            for s in range(S):
                dx[n, c, s] = rstd[c] * (dy[n, c, s] - plain - y[n, c, s] * along)
