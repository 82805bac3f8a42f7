"""Fractional max pooling: windows of one size at pseudorandom places (Graham, arXiv:1412.6071)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.pool.launch_max import fractional_max_pools, index_dtype
from funcnn.ops.base import costs
from funcnn.ops.base.dims import per_dim
from funcnn.ops.base.promote import operand
from funcnn.ops.pool.pool import (
    folded,
    images_of,
    named,
    places_wanted,
    pooled_with_indices,
    scatter_vjp,
    without_places,
)
from funcnn.ops.random.generator import draw_key
from funcnn.ops.random.keys import uniform_from


def _shape(x: Any, samples: Any, size: tuple, out: tuple, indices: bool) -> tuple:
    name, n = f"fractional_max_pool{len(size)}d", len(size)
    if tuple(samples.shape) != (*x.shape[:2], n) or samples.dtype != x.dtype:
        raise ShapeError(
            f"{name}: expected _random_samples of shape {(*x.shape[:2], n)} and dtype {x.dtype}, got "
            f"{tuple(samples.shape)} of {samples.dtype}"
        )
    if any(o + k - 1 > s for o, k, s in zip(out, size, x.shape[2:], strict=True)):
        raise ShapeError(
            f"{name}: {out} windows of {size} do not fit an input of shape {tuple(x.shape)}; output_size + kernel_size - 1 "
            "must be at most the input's size"
        )
    shape = (*x.shape[:2], *out)
    return (Aval(shape, x.dtype), Aval(shape, index_dtype(x.shape[2:])))[: 1 + indices]


fractional_max_pool_p = Primitive(
    "fractional_max_pool",
    _shape,
    cpu=fractional_max_pools,
    vjp=scatter_vjp,
    batch=lambda n, ins, batched, **params: folded(fractional_max_pool_p, n, ins, batched, **params),
    keeps="o",
    multiple=True,
    unused=lambda used, params: without_places(fractional_max_pool_p, used, params),
    flops=costs.each(1),
)


def _output(name: str, space: tuple, output_size: Any, output_ratio: Any) -> tuple[int, ...]:
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name}: expected an output_size or an output_ratio, got neither")
    if output_size is not None:
        return per_dim(name, "output_size", output_size, len(space))
    ratios = tuple(output_ratio) if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * len(space)
    if len(ratios) != len(space) or not all(0 < r < 1 for r in ratios):
        raise ValueError(f"{name}: output_ratio must be between 0 and 1, got {output_ratio}")
    sizes = tuple(int(s * r) for s, r in zip(space, ratios, strict=True))
    return per_dim(name, "input size times output_ratio", sizes, len(space))


def _fractional_max_pool(n: int, doc: str) -> Callable:
    name = f"fractional_max_pool{n}d"

    def pool(
        input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
        _random_samples: Any = None, *, key: Tensor | None = None,
    ) -> Any:  # fmt: skip
        x, single = images_of(name, n, input)
        size = per_dim(name, "kernel_size", kernel_size, n)
        out = _output(name, tuple(x._v.shape[2:]), output_size, output_ratio)
        if _random_samples is None:
            shape = (*x._v.shape[:2], n)
            samples = uniform_from(draw_key() if key is None else key, shape, x._v.dtype)
        else:
            samples = operand(name, _random_samples)
        noted = return_indices or places_wanted(x)
        outs = fractional_max_pool_p(x, samples, size=size, out=out, indices=noted)
        return pooled_with_indices(outs, single, return_indices)

    return named(pool, name, doc)


_DOC = (
    "The largest of each of ``output_size`` (or ``output_ratio`` times the input's size) windows of ``kernel_size`` at "
    "pseudorandom places of (N, C, *spatial), drawn for each image from ``_random_samples`` in [0, 1), else from ``key``, "
    "else from the global generator. With ``return_indices`` also its flat index."
)
fractional_max_pool2d, fractional_max_pool3d = (_fractional_max_pool(n, _DOC) for n in (2, 3))
