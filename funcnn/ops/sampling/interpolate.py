"""Interpolation over one to three spatial dimensions: one linear primitive that resamples each axis by a table.

Its transpose is the same primitive with the transposed tables, so it is closed under differentiation.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import NoneType
from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.sampling.axes import Axis
from funcnn.kernels.cpu.sampling.resize_launch import resized, resizes
from funcnn.ops.base import costs
from funcnn.ops.base.batching import merge_batch, split_batch
from funcnn.ops.base.promote import operand
from funcnn.ops.pool import adaptive as adaptive_pool
from funcnn.ops.sampling.interpolate_bytes import resize_bytes_p

# ---- the primitive ----------------------------------------------------------------------------------------------------
resize_p = Primitive(
    "interpolate",
    shape=lambda x, axes, transpose: (Aval((*x.shape[:2], *resized(axes, transpose)), x.dtype),),
    cpu=resizes,
    vjp=lambda g, ins, out, axes, transpose: (resize_p(g, axes=axes, transpose=not transpose),),
    batch=lambda n, ins, batched, **how: split_batch(resize_p(merge_batch(ins[0]), **how), n),
    keeps="",
    flops=costs.resized,
)


# ---- public -----------------------------------------------------------------------------------------------------------
KINDS = {
    "nearest": ("nearest", (1, 2, 3)), "nearest-exact": ("nearest-exact", (1, 2, 3)), "area": ("area", (1, 2, 3)),
    "linear": ("linear", (1,)), "bilinear": ("linear", (2,)), "trilinear": ("linear", (3,)), "bicubic": ("cubic", (2,)),
}  # fmt: skip


def _checked(x: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> int:
    """The number of spatial dimensions. Raises for a mode that does not go with them, or an option with the mode."""
    if mode not in KINDS:
        raise NotImplementedError(f"interpolate: unknown mode {mode!r}; expected one of {', '.join(KINDS)}")
    whole = x._v.dtype == dtypes.uint8 and mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
    if not whole and (x._v.dtype.kind != "f" or x._v.dtype.itemsize < 4):
        raise DTypeError(
            f"interpolate: expected float32 or float64, got {x.dtype}; convert with .float() (uint8 goes with nearest, "
            "bilinear and bicubic)"
        )
    n = x.ndim - 2
    if n not in KINDS[mode][1]:
        ranks = " or ".join(str(k + 2) for k in KINDS[mode][1])
        raise NotImplementedError(
            f"interpolate: mode {mode!r} needs an input of {ranks} dimensions (N, C, ...), got shape {tuple(x.shape)}"
        )
    if align_corners is not None and KINDS[mode][0] in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"interpolate: align_corners goes with linear, bilinear, bicubic and trilinear, not {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolate: antialias goes with bilinear and bicubic, not {mode!r}")
    if 0 in x._v.shape[1:]:
        raise ShapeError(f"interpolate: expected pixels and channels, got shape {tuple(x.shape)}")
    return n


def _several(name: str, value: Any, n: int) -> list:
    listed = list(value) if isinstance(value, (tuple, list)) else [value] * n
    if len(listed) != n:
        raise ValueError(f"interpolate: expected one {name} or {n}, got {value!r}")
    return listed


def _sizes(space: tuple, size: Any, scale_factor: Any, again: bool | None) -> tuple[list[int], list[float]]:
    """Output sizes, and the factors that take the place of their ratios (0: none does)."""
    n = len(space)
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    if size is not None:
        if again:
            raise ValueError("interpolate: recompute_scale_factor goes with scale_factor, not with size")
        wanted, factors = [int(s) for s in _several("size", size, n)], [0.0] * n
    else:
        factors = [float(f) for f in _several("scale_factor", scale_factor, n)]
        wanted = [math.floor(s * f) for s, f in zip(space, factors, strict=True)]
    if any(s <= 0 for s in wanted):
        raise ShapeError(f"interpolate: an input of {space} pixels would become {tuple(wanted)}")
    return wanted, [0.0] * n if again else factors


def _axes(
    kind: str, space: tuple, size: Any, scale_factor: Any, again: bool | None, align_corners: bool, antialias: bool
) -> tuple[Axis, ...]:
    wanted, factors = _sizes(space, size, scale_factor, again)
    options = align_corners, antialias
    return tuple(Axis(kind, s, m, f, *options) for s, m, f in zip(space, wanted, factors, strict=True))


NUMBERS = (int, float, NoneType)
_known_axes = lru_cache(maxsize=256)(_axes)


def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """(N, C, *spatial) resampled to ``size``, or by ``scale_factor``, which then also places the pixels.

    mode: nearest, nearest-exact, area (adaptive average); linear, bilinear, trilinear, bicubic by the rank of the input.
    align_corners: corner pixels stay at the corners. recompute_scale_factor: place pixels by the ratio of the sizes.
    antialias: bilinear and bicubic kernels are widened when the image shrinks.
    """
    x = operand("interpolate", input)
    n = _checked(x, mode, align_corners, antialias)
    space = tuple(x._v.shape[2:])
    kind = KINDS[mode][0]
    plain = type(size) in NUMBERS and type(scale_factor) in NUMBERS
    options = bool(align_corners), bool(antialias)
    axes = (_known_axes if plain else _axes)(kind, space, size, scale_factor, recompute_scale_factor, *options)
    if kind == "area":
        return getattr(adaptive_pool, f"adaptive_avg_pool{n}d")(x, tuple(axis.m for axis in axes))
    if x._v.dtype == dtypes.uint8:
        return resize_bytes_p(x, axes=axes)
    return resize_p(x, axes=axes, transpose=False)
