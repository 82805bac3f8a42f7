"""Adaptive pooling: as many windows as wanted, which cover the input; window i of o over s pixels is [i s / o, (i + 1) s / o),
rounded outwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.pool import launch_avg, launch_max
from funcnn.kernels.cpu.pool.launch_max import index_dtype
from funcnn.ops.base import costs
from funcnn.ops.base.dims import per_dim
from funcnn.ops.pool.pool import (
    folded,
    images_of,
    named,
    places_wanted,
    pooled_with_indices,
    scatter_vjp,
    without_batch,
    without_places,
)

adaptive_avg_pool_p = Primitive(
    "adaptive_avg_pool",
    shape=lambda x, out: (Aval((*x.shape[:2], *out), x.dtype),),
    cpu=launch_avg.adaptive_avg_pools,
    vjp=lambda g, ins, o, out: (adaptive_avg_pool_grad_p(g, space=tuple(ins[0]._v.shape[2:]), out=out),),
    batch=lambda n, ins, batched, out: folded(adaptive_avg_pool_p, n, ins, batched, out=out),
    keeps="",
    flops=costs.each(1),
)
adaptive_avg_pool_grad_p = Primitive(
    "adaptive_avg_pool_grad",
    shape=lambda dy, space, out: (Aval((*dy.shape[:2], *space), dy.dtype),),
    cpu=launch_avg.avg_pool_grads,
    vjp=lambda g, ins, o, space, out: (adaptive_avg_pool_p(g, out=out),),
    batch=lambda n, ins, batched, **params: folded(adaptive_avg_pool_grad_p, n, ins, batched, **params),
    keeps="",
    flops=costs.each(1),
)


def _max_shape(x: Any, out: tuple, indices: bool) -> tuple:
    shape = (*x.shape[:2], *out)
    return (Aval(shape, x.dtype), Aval(shape, index_dtype(x.shape[2:])))[: 1 + indices]


adaptive_max_pool_p = Primitive(
    "adaptive_max_pool",
    _max_shape,
    cpu=launch_max.adaptive_max_pools,
    vjp=scatter_vjp,
    batch=lambda n, ins, batched, **params: folded(adaptive_max_pool_p, n, ins, batched, **params),
    keeps="o",
    multiple=True,
    unused=lambda used, params: without_places(adaptive_max_pool_p, used, params),
    flops=costs.each(1),
)


def _prepared(name: str, n: int, input: Any, output_size: Any) -> tuple[Tensor, tuple, bool]:
    x, single = images_of(name, n, input)
    space = tuple(x._v.shape[2:])
    if 0 in space:
        raise ShapeError(f"{name}: expected at least one pixel in each dimension, got shape {tuple(x.shape)}")
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(sizes) == n:
        sizes = tuple(s if o is None else o for s, o in zip(space, sizes, strict=True))
    return x, per_dim(name, "output_size", sizes, n), single


def _adaptive_avg(n: int, doc: str) -> Callable:
    name = f"adaptive_avg_pool{n}d"

    def pool(input: Any, output_size: Any) -> Tensor:
        x, out, single = _prepared(name, n, input, output_size)
        return without_batch(adaptive_avg_pool_p(x, out=out), single)

    return named(pool, name, doc)


def _adaptive_max(n: int, doc: str) -> Callable:
    name = f"adaptive_max_pool{n}d"

    def pool(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        x, out, single = _prepared(name, n, input, output_size)
        noted = return_indices or places_wanted(x)
        return pooled_with_indices(adaptive_max_pool_p(x, out=out, indices=noted), single, return_indices)

    return named(pool, name, doc)


_DOC = "of (N, C, *spatial) in ``output_size`` windows that cover it; None keeps a dimension's size."
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _adaptive_avg(n, f"The mean {_DOC}") for n in (1, 2, 3)
)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _adaptive_max(n, f"The largest {_DOC} With ``return_indices`` also its flat index.") for n in (1, 2, 3)
)
