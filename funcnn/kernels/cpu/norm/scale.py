"""Batch norm by statistics that are given, as in evaluation, and the running statistics that are given there."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, exact_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.norm.runs import PIECE_ELEMENTS, run_scale
from funcnn.kernels.cpu.vector.instructions import pointer


@device_function
def row_scale(x, y, start, n, centre, scale, shift):
    """Writes ``y = (x - centre) * scale + shift`` with vectors of them."""
    p, q, m, a, b = pointer(x, start), pointer(y, start), pointer(centre, 0), pointer(scale, 0), pointer(shift, 0)
    for i in range(n):
        q[i] = (p[i] - m[i]) * a[i] + b[i]


@exact_function
def channel_scale(var, weight, eps):
    """Returns ``weight / sqrt(var + eps)``, each rounding as it stands here."""
    return 1.0 / np.sqrt(var + eps) * weight


@device_function
def _scaled(chunk, worker, x, y, centre, scale, shift, each, room, past):
    N, C, S = x.shape
    if S == 1:
        for n in range(chunk * each, min((chunk + 1) * each, N)):
            row_scale(x, y, n * C, C, centre, scale, shift)
        return
    own = pointer(room, worker * PIECE_ELEMENTS)
    for segment in range(chunk * each, min((chunk + 1) * each, N * C)):
        c = segment % C
        for begin in range(0, S, PIECE_ELEMENTS):
            start, n = segment * S + begin, min(PIECE_ELEMENTS, S - begin)
            run_scale(x, y, start, n, centre[c], scale[c], shift[c], own, past)


@kernel(
    touches={
        "y": lambda x: x.size,
        "mean": lambda x: x.shape[1],
        "var": lambda x: x.shape[1],
        "weight": lambda x: x.shape[1],
        "bias": lambda x: x.shape[1],
        "scale": lambda x: x.shape[1],
        "room": lambda x, past, threads: threads * PIECE_ELEMENTS if past and x.shape[2] > 1 else 0,
    }
)
def scale_channels(x, y, mean, var, weight, bias, scale, eps, each, room, past, threads):
    """Writes y = (x - mean) / sqrt(var + eps) * weight + bias for each channel of x (N, C, S); ``each`` segments, or rows if S = 1,
    in a chunk.

    scale: scratch for each channel; room: PIECE_ELEMENTS for each worker. past: write y past the cache.
    """
    for c in range(x.shape[1]):
        scale[c] = channel_scale(np.float64(var[c]), np.float64(weight[c]), eps)
    count = x.shape[0] if x.shape[2] == 1 else x.shape[0] * x.shape[1]
    args = (x, y, mean, scale, bias, each, room, past)
    parallel_for(_scaled, (count + each - 1) // each, threads, args)


# ---- running statistics -------------------------------------------------------------------------------------------------
@exact_function
def blended(held, batch, keep, take):
    """Returns ``held * keep + batch * take``, each rounding as it stands here."""
    return held * keep + batch * take


@kernel(touches={"batch": lambda out: out.size, "held": lambda out: out.size})
def follow(held, batch, out, keep, take):
    """Writes out = held * keep + batch * take."""
    kind = out.dtype.type
    a, b = kind(keep), kind(take)
    for i in range(out.size):
        out[i] = blended(held[i], batch[i], a, b)
