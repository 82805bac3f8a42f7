"""How cross-entropy and logsumexp run on the CPU: by sums of exponentials."""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.memory import fresh
from funcnn.kernels.cpu.softmax.entropy import cross_entropy_pick
from funcnn.kernels.cpu.softmax.launch import exponentials, log_sums, rows


def cross_entropy(ins: list, outs: list, ignore_index: int, reduction: str) -> None:
    x, target = (np.ascontiguousarray(a) for a in ins)
    out, top, rest = outs
    loss = out if reduction == "none" else fresh(target.shape, x.dtype)
    if x.size:
        log_sums(x, top, rest)
        cross_entropy_pick(x, target, top, rest, loss, ignore_index)
    else:
        loss.fill(0)
    if reduction != "none":
        total = np.sum(loss, dtype=np.float64)
        out[...] = total / np.count_nonzero(target != ignore_index) if reduction == "mean" else total


def cross_entropy_grad(ins: list, outs: list, ignore_index: int, reduction: str) -> None:
    x, target, dloss, top, rest = (np.ascontiguousarray(a) for a in ins)
    if reduction == "mean":
        dloss = dloss / np.count_nonzero(target != ignore_index)
    scale = dloss if reduction == "none" else np.full(target.shape, dloss, x.dtype)
    if x.size:
        exponentials(x, top, rest, scale, outs[0], target, ignore_index)


def logsumexp(ins: list, outs: list, dim: int) -> None:
    x, out = rows(ins[0], dim), outs[0]
    if not x.size:
        out.fill(-np.inf)
        return
    top, rest = (fresh((x.shape[0], x.shape[2]), x.dtype) for _ in range(2))
    log_sums(x, top, rest)
    np.add(top, rest, out=rest, where=~np.isinf(top))
    np.copyto(rest, top, where=np.isinf(top))  # infinity less infinity is NaN there
    np.copyto(out, rest.reshape(out.shape))


def logsumexp_grad(ins: list, outs: list, dim: int) -> None:
    if not outs[0].size:
        return
    x, dx = rows(ins[1], dim), rows(outs[0], dim)
    shape = x.shape[0], x.shape[2]
    scale, top = (np.ascontiguousarray(ins[k]).reshape(shape) for k in (0, 2))
    exponentials(x, top, np.zeros(shape, x.dtype), scale, dx)
