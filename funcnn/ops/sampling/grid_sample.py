"""Sampling images at given places, and the affine grids that spatial transformers sample at (Jaderberg et al.,
arXiv:1506.02025).

Values and the image's gradient are each other's transposes in the image; the gradient of the places differentiates again
as the composition of operations that it stands for.
"""

from __future__ import annotations

from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.composition import pullback
from funcnn.core.device import device_of
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.sampling import grid_launch as launch
from funcnn.kernels.cpu.sampling.grid_taps import BORDER, REFLECTION, ZEROS
from funcnn.kernels.cpu.sampling.host import pixel_line
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched, merge_batch, split_batch
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import operand, require_floating, require_kernel_float, require_same_dtype
from funcnn.ops.base.structure import cast, number_like, tabulated, zeros_like
from funcnn.ops.elementwise.arithmetic import abs as abs_
from funcnn.ops.elementwise.arithmetic import add, mul, remainder, sub
from funcnn.ops.elementwise.bounds import clamp
from funcnn.ops.elementwise.comparison import eq, ge, le, logical_and
from funcnn.ops.elementwise.math import floor
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.along import gather
from funcnn.ops.matmul.matmul import matmul
from funcnn.ops.movement.join import stack
from funcnn.ops.movement.views import expand, reshape, select, stop_gradient, transpose, unsqueeze
from funcnn.ops.tensor.creation import ones

TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4}
PADDINGS = {"zeros": ZEROS, "border": BORDER, "reflection": REFLECTION}


# ---- the same from operations, for higher derivatives -----------------------------------------------------------------
def _inside(x: Tensor, size: int, padding: int, align: bool) -> Tensor:
    """Pixel coordinates moved into the image as the padding says."""
    if padding == REFLECTION:
        low, span = (0.0, size - 1.0) if align else (-0.5, float(size))
        way = abs_(sub(x, low))
        flips = stop_gradient(floor(mul(way, 1.0 / max(span, 1e-30))))
        rest = sub(way, mul(flips, span))
        x = add(where(eq(remainder(flips, 2.0), 1.0), sub(span, rest), rest), low)
    return x if padding == ZEROS else clamp(where(eq(x, x), x, 0.0), 0.0, size - 1.0)


def _cubic(t: Tensor) -> list[Tensor]:
    """The four weights of a place a way t past its second pixel (Keys, 1981, with -3/4)."""

    def near(x: Tensor) -> Tensor:
        return add(mul(mul(sub(mul(x, 1.25), 2.25), x), x), 1.0)

    def far(x: Tensor) -> Tensor:
        return add(mul(add(mul(add(mul(x, -0.75), 3.75), x), -6.0), x), 3.0)

    back = sub(1.0, t)
    return [far(add(t, 1.0)), near(t), near(back), far(add(back, 1.0))]


def _axis(g: Tensor, size: int, taps: int, padding: int, align: bool) -> list[tuple[Tensor, Tensor]]:
    """Pixel (a float) and weight of each tap of an axis."""
    step = 0.5 * (size - 1 if align else size)
    x = sub(mul(add(g, 1.0), step), 0.0 if align else 0.5)
    x = x if taps == 4 else _inside(x, size, padding, align)
    first = stop_gradient(floor(x))
    t = sub(x, first)
    if taps == 2:
        return [(first, sub(1.0, t)), (add(first, 1.0), t)]
    pixels = [_inside(add(first, k - 1.0), size, padding, align) for k in range(4)]
    return list(zip([floor(add(pixel, 0.5)) for pixel in pixels], _cubic(t), strict=True))


def _composed(x: Tensor, grid: Tensor, taps: int, padding: int, align: bool) -> Tensor:
    """``sample_p`` as a composition of operations."""
    n, c, *space = x._v.shape
    axes, out = len(space), tuple(grid._v.shape[1:-1])
    count = numel(out)
    flat, places = reshape(x, (n, c, numel(tuple(space)))), reshape(grid, (n, count, axes))
    products: list[tuple] = [(number_like(grid, 0, dtypes.int64), None, None)]  # index, whether inside, weight
    for a, size in enumerate(space):  # the last axis of space is the grid's first
        found = _axis(select(places, 2, axes - 1 - a), size, taps, padding, align)
        grown = []
        for (index, there, weight), (pixel, own) in ((p, tap) for p in products for tap in found):
            present = logical_and(ge(pixel, 0.0), le(pixel, size - 1.0))
            inside = clamp(where(present, stop_gradient(pixel), 0.0), 0.0, size - 1.0)
            place = add(mul(index, size), cast(inside, dtypes.int64))
            grown.append((place, present if there is None else logical_and(there, present),
                          own if weight is None else mul(weight, own)))  # fmt: skip
        products = grown
    y = None
    for index, there, weight in products:
        seen = gather(flat, 2, expand(unsqueeze(index, 1), (n, c, count)))
        term = mul(where(unsqueeze(there, 1), seen, 0.0), unsqueeze(weight, 1))
        y = term if y is None else add(y, term)
    return reshape(y, (n, c, *out))


# ---- primitives -------------------------------------------------------------------------------------------------------
def _sample_vjp(g: Tensor, ins: list, out: Tensor, **how: Any) -> tuple:
    x, grid = ins

    def dgrid() -> Tensor:
        if how["taps"] == 1:  # the nearest pixel stays the same
            return zeros_like(grid)
        return sample_grid_grad_p(g, x, grid, **how)

    return lambda: sample_image_grad_p(g, grid, space=tuple(x._v.shape[2:]), **how), dgrid


def _image_vjp(g: Tensor, ins: list, out: Tensor, space: tuple, **how: Any) -> tuple:
    dy, grid = ins
    dgrid = _sample_vjp(dy, [g, grid], out, **how)[1]
    return lambda: sample_p(g, grid, **how), dgrid


def _grid_vjp(g: Tensor, ins: list, out: Tensor, **how: Any) -> tuple:
    def composed(dy: Tensor, x: Tensor, grid: Tensor) -> Tensor:
        return pullback(lambda places: _composed(x, places, **how), (grid,), dy)[0]

    return pullback(composed, tuple(ins), g)


def _folded(prim: Primitive, n: int, ins: list, batched: list, params: dict) -> Tensor:
    return split_batch(prim(*[merge_batch(t) for t in all_batched(n, ins, batched)], **params), n)


sample_p = Primitive(
    "grid_sample",
    shape=lambda x, grid, **how: (Aval((*x.shape[:2], *grid.shape[1:-1]), x.dtype),),
    cpu=launch.samples,
    vjp=_sample_vjp,
    batch=lambda n, ins, batched, **how: _folded(sample_p, n, ins, batched, how),
    flops=costs.sampled,
)
sample_image_grad_p = Primitive(
    "grid_sample_image_grad",
    shape=lambda dy, grid, space, **how: (Aval((*dy.shape[:2], *space), dy.dtype),),
    cpu=launch.image_grads,
    vjp=_image_vjp,
    batch=lambda n, ins, batched, **how: _folded(sample_image_grad_p, n, ins, batched, how),
    flops=costs.sampled,
)
sample_grid_grad_p = Primitive(
    "grid_sample_grid_grad",
    shape=lambda dy, x, grid, **how: (Aval(tuple(grid.shape), grid.dtype),),
    cpu=launch.grid_grads,
    vjp=_grid_vjp,
    batch=lambda n, ins, batched, **how: _folded(sample_grid_grad_p, n, ins, batched, how),
    flops=costs.twice(costs.sampled),
)


# ---- public -----------------------------------------------------------------------------------------------------------
def _checked(x: Tensor, grid: Tensor, mode: str, padding_mode: str) -> None:
    if mode not in TAPS:
        raise ValueError(f"grid_sample: mode must be one of {', '.join(TAPS)}, got {mode!r}")
    if padding_mode not in PADDINGS:
        raise ValueError(f"grid_sample: padding_mode must be one of {', '.join(PADDINGS)}, got {padding_mode!r}")
    require_same_dtype("grid_sample", x, grid)
    require_kernel_float("grid_sample", x)
    if x.ndim not in (4, 5) or grid.ndim != x.ndim:
        raise ShapeError(
            "grid_sample: expected an input (N, C, H, W) and a grid (N, P, Q, 2), or (N, C, D, H, W) and "
            f"(N, O, P, Q, 3), got shapes {tuple(x.shape)} and {tuple(grid.shape)}"
        )
    if x.shape[0] != grid.shape[0] or grid.shape[-1] != x.ndim - 2:
        raise ShapeError(
            f"grid_sample: an input of shape {tuple(x.shape)} needs a grid ({x.shape[0]}, ..., {x.ndim - 2}), "
            f"got {tuple(grid.shape)}"
        )
    if 0 in x._v.shape[2:]:
        raise ShapeError(f"grid_sample: expected at least one pixel, got an input of shape {tuple(x.shape)}")
    if mode == "bicubic" and x.ndim == 5:
        raise NotImplementedError("grid_sample: bicubic needs an input of 4 dimensions, got 5; use bilinear")


def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """(N, C, [D,] H, W) at ``grid`` (N, [O,] P, Q, 2 or 3), whose last axis is (x, y[, z]) in [-1, 1]: (N, C, [O,] P, Q).

    mode: bilinear, nearest (no gradient for the grid) or bicubic (4-d). padding_mode: what lies outside is zeros, the
    border pixel, or the image's reflection. align_corners: -1 and 1 are the centres of corner pixels, not their edges.
    """
    x, places = operand("grid_sample", input), operand("grid_sample", grid)
    _checked(x, places, mode, padding_mode)
    return sample_p(x, places, taps=TAPS[mode], padding=PADDINGS[padding_mode], align=bool(align_corners))


def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Tensor:
    """The grid for ``grid_sample`` of affine maps ``theta`` (N, 2, 3) or (N, 3, 4) for an output of ``size`` (N, C, ...)."""
    maps = operand("affine_grid", theta)
    sizes = tuple(int(s) for s in size)
    n, axes = sizes[0] if sizes else 0, len(sizes) - 2
    if axes not in (2, 3) or maps._v.shape != (n, axes, axes + 1) or min(sizes) < 1:
        raise ShapeError(
            "affine_grid: expected theta (N, 2, 3) and positive sizes (N, C, H, W), or (N, 3, 4) and (N, C, D, H, W), "
            f"got {tuple(maps.shape)} and {sizes}"
        )
    dtype = require_floating("affine_grid", maps, "a floating-point theta")._v.dtype
    lines = [line(device_of(maps._v), size=s, align=bool(align_corners), dtype=dtype) for s in sizes[2:]]
    spread = [expand(reshape(t, (-1, *(1,) * (axes - 1 - i))), sizes[2:]) for i, t in enumerate(lines)]
    mesh = stack([*spread[::-1], ones(sizes[2:], dtype=dtype, device=maps.device)], -1)
    places = matmul(reshape(mesh, (-1, axes + 1)), transpose(maps, 1, 2))
    return reshape(places, (n, *sizes[2:], axes))


line = tabulated("affine_line", lambda size, align, dtype: Aval((size,), dtype), pixel_line, costs.each(2))
