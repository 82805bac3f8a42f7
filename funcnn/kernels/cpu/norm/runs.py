"""Sums over runs, and what is written of them: the loops of all normalisations.

Sums run in vectors of the data's type over at most PIECE_ELEMENTS, and are joined in float64 by the callers. A run that is
written past the cache (``past``) is first computed into ``room``, PIECE_ELEMENTS that stay in the first-level cache.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function
from funcnn.kernels.cpu.vector.instructions import pointer
from funcnn.kernels.cpu.vector.streaming import stream

PIECE_ELEMENTS = 2048


# ---- sums ---------------------------------------------------------------------------------------------------------------
@device_function
def run_sum(x, start, n):
    """Returns the sum of n elements."""
    p = pointer(x, start)
    total = x.dtype.type(0)
    for i in range(n):
        total += p[i]
    return np.float64(total)


@device_function
def first_mean(x, start, n):
    """Returns the mean of the first eighth of n elements: within about three standard deviations of the mean of them all,
    so that the sums of deviations from it lose a digit at most."""
    few = (n + 7) // 8
    return run_sum(x, start, few) / few


@device_function
def run_spread(x, start, n, centre):
    """Returns the sums of ``x - centre`` and of its square."""
    p = pointer(x, start)
    plain, squared = x.dtype.type(0), x.dtype.type(0)
    for i in range(n):
        off = p[i] - centre
        plain += off
        squared += off * off
    return np.float64(plain), np.float64(squared)


@device_function
def run_dots(dy, x, start, n, centre):
    """Returns the sums of ``dy``, of ``dy * (x - centre)`` and of ``x - centre``."""
    g, p = pointer(dy, start), pointer(x, start)
    plain, along, left = x.dtype.type(0), x.dtype.type(0), x.dtype.type(0)
    for i in range(n):
        off = p[i] - centre
        plain += g[i]
        along += g[i] * off
        left += off
    return np.float64(plain), np.float64(along), np.float64(left)


# ---- writing ------------------------------------------------------------------------------------------------------------
@device_function
def run_scale(x, y, start, n, centre, scale, shift, room, past):
    """Writes ``y = (x - centre) * scale + shift``."""
    p, q = pointer(x, start), pointer(y, start)
    out = room if past else q
    for i in range(n):
        out[i] = (p[i] - centre) * scale + shift
    if past:
        stream(q, room, n)


@device_function
def run_combine(dy, x, dx, start, n, centre, a, b, c, room, past):
    """Writes ``dx = dy * a + (x - centre) * b + c``."""
    g, p, q = pointer(dy, start), pointer(x, start), pointer(dx, start)
    out = room if past else q
    for i in range(n):
        out[i] = g[i] * a + ((p[i] - centre) * b + c)
    if past:
        stream(q, room, n)
