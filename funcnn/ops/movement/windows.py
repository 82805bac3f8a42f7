"""Sliding windows along one dimension, ``Tensor.unfold``: a view, whose transpose adds the windows up."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.device import device_of
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.implementation import host
from funcnn.ops.base import costs
from funcnn.ops.base.dims import normalize_dim
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import reshape_p, tabulated
from funcnn.ops.elementwise.select import where
from funcnn.ops.movement.views import reshape


def _windowed(shape: tuple, dim: int, size: int, step: int) -> tuple[int, ...]:
    return (*shape[:dim], (shape[dim] - size) // step + 1, *shape[dim + 1 :], size)


def _windows(x: np.ndarray, dim: int, size: int, step: int) -> np.ndarray:
    """The windows in the memory of ``x``; where they overlap they may not be written."""
    strides = (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :], x.strides[dim])
    shape = _windowed(x.shape, dim, size, step)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=x.flags.writeable and step >= size)


def _sum_of_windows(ins: list, outs: list, dim: int, step: int, length: int) -> None:
    g, out = ins[0], outs[0]
    out[...] = 0
    lead = (slice(None),) * dim
    count = g.shape[dim]
    for k in range(g.shape[-1]):
        out[(*lead, slice(k, k + (count - 1) * step + 1, step))] += g[..., k]


windows_sum_p = Primitive(
    "windows_sum",
    shape=lambda g, dim, step, length: (Aval((*g.shape[:dim], length, *g.shape[dim + 1 : -1]), g.dtype),),
    cpu=(
        host(
            "numpy", _sum_of_windows, "windows along any axis have no kernel yet: NumPy adds one place of all at a time"
        ),
    ),
    vjp=lambda c, ins, o, dim, step, length: (windows_p(c, dim=dim, size=ins[0]._v.shape[-1], step=step),),
    batch=lambda n, ins, batched, dim, step, length: windows_sum_p(ins[0], dim=dim + 1, step=step, length=length),
    keeps="",
    flops=costs.each(1),
)


def _covered(length: int, size: int, step: int) -> np.ndarray:
    held = np.zeros(length, bool)
    for start in range(0, length - size + 1, step):
        held[start : start + size] = True
    return held


held = tabulated("windows_hold", lambda length, size, step: Aval((length,), dtypes.bool_), _covered)


def covered(t: Tensor, dim: int, size: int, step: int) -> Tensor:
    """A mask that broadcasts against ``t``: which places some window holds."""
    mask = held(device_of(t._v), length=t._v.shape[dim], size=size, step=step)
    return reshape_p(mask, shape=tuple(t._v.shape[d] if d == dim else 1 for d in range(t.ndim)))


def _unview(base: Tensor, new: Tensor, dim: int, size: int, step: int) -> Tensor:
    if step < size:
        raise ShapeError(
            f"unfold: windows of {size} that are {step} apart overlap and cannot be written; .clone() them"
        )
    length = base._v.shape[dim]
    return where(covered(base, dim, size, step), windows_sum_p(new, dim=dim, step=step, length=length), base)


windows_p = Primitive(
    "unfold",
    shape=lambda x, dim, size, step: (Aval(_windowed(tuple(x.shape), dim, size, step), x.dtype),),
    view=_windows,
    unview=_unview,
    vjp=lambda g, ins, o, dim, size, step: (windows_sum_p(g, dim=dim, step=step, length=ins[0]._v.shape[dim]),),
    batch=lambda n, ins, batched, dim, size, step: windows_p(ins[0], dim=dim + 1, size=size, step=step),
    keeps="",
)


def unfold(input: Any, dimension: int, size: int, step: int) -> Tensor:
    """All windows of ``size`` along ``dimension``, ``step`` apart, as a view whose last dimension runs in a window."""
    x = to_tensor(input)
    dim = normalize_dim("unfold", dimension, x.ndim)
    length = x._v.shape[dim] if x.ndim else 1
    if step <= 0 or not 0 <= size <= length:
        raise ShapeError(f"unfold: size {size} and step {step} do not fit dimension {dim} of size {length}")
    if x.ndim == 0:
        return reshape(x, (1,))[:size]  # type: ignore[index]
    return windows_p(x, dim=dim, size=int(size), step=int(step))
