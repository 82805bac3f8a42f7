"""Sliding windows along one dimension, ``Tensor.unfold``: a view, whose transpose adds the windows up."""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.device import device_of
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.movement import host
from funcnn.ops.base import costs
from funcnn.ops.base.dims import normalize_dim
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import reshape_p, tabulated
from funcnn.ops.elementwise.select import where
from funcnn.ops.movement.views import reshape

windows_sum_p = Primitive(
    "windows_sum",
    shape=lambda g, dim, step, length: (Aval((*g.shape[:dim], length, *g.shape[dim + 1 : -1]), g.dtype),),
    cpu=host.WINDOWS_SUM,
    vjp=lambda c, ins, o, dim, step, length: (windows_p(c, dim=dim, size=ins[0]._v.shape[-1], step=step),),
    batch=lambda n, ins, batched, dim, step, length: windows_sum_p(ins[0], dim=dim + 1, step=step, length=length),
    keeps="",
    flops=costs.each(1),
)


held = tabulated("windows_hold", lambda length, size, step: Aval((length,), dtypes.bool_), host.windows_hold)


def covered(t: Tensor, dim: int, size: int, step: int) -> Tensor:
    """A mask that broadcasts against ``t``: which elements some window holds."""
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
    shape=lambda x, dim, size, step: (Aval(host.windowed_shape(tuple(x.shape), dim, size, step), x.dtype),),
    view=host.windowed,
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
