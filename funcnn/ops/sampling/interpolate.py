"""Interpolation over one to three spatial dimensions: one linear primitive that resamples each axis by a table.

Its transpose is the same primitive with the transposed tables, so it is closed under differentiation.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import NoneType
from typing import Any, NamedTuple

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.memory import empty, fresh
from funcnn.kernels.cpu.sampling import interpolate as kernels
from funcnn.kernels.cpu.sampling.axes import Axis, rows_of, table
from funcnn.kernels.cpu.threads import number as threads
from funcnn.ops.base.batching import fold, unfold_batch
from funcnn.ops.base.promote import operand
from funcnn.ops.pool import adaptive as adaptive_pool
from funcnn.ops.sampling.interpolate_bytes import resize_bytes_p

TAP_NS, PLACE_NS = 0.1, 0.5  # of a weighted addition: of neighbours, of numbers anywhere
APART = 32  # numbers between what two workers write, so that no line of the cache goes to and fro
ROW_NS, READ_NS = 10.0, 0.15  # of a row of outputs beside its numbers; of an input number
NONE, NOWHERE = np.zeros(0, np.int64), np.zeros((1, 0), np.int64)
CHUNK = 1 << 17  # bytes of input and output of a chunk


# ---- the primitive ----------------------------------------------------------------------------------------------------
def _resized(axes: tuple[Axis, ...], transpose: bool) -> tuple[int, ...]:
    return tuple(axis.n if transpose else axis.m for axis in axes)


class Pass(NamedTuple):
    """The arguments of the kernel for one pass over planes, and what the number of planes decides."""

    rows: tuple
    columns: tuple
    sizes: tuple[int, int, int, int]
    plan: tuple[int, int, int]
    room: int  # numbers of scratch that a worker needs
    nothing: np.ndarray  # the scratch of those that need none
    work: float  # nanoseconds a plane


@lru_cache(maxsize=256)
def _pass(height: tuple | None, width: tuple | None, dtype: np.dtype, sizes: tuple) -> Pass:
    """Resampling of (H, W) to (P, Q), each axis by the arguments of its ``table``; None leaves it alone."""
    h, w, p, q = sizes
    tall, wide = (None if how is None else table(*how) for how in (height, width))
    ring = min(tall.span, h) if tall and wide and p >= h else 0
    if tall and wide and tall.taps == 1 and (tall.source >= 0).all() and (tall.weight == 1).all():
        ring = -1
    nothing = np.zeros(0, dtype)
    rows = rows_of(*height, q if ring > 0 else w, max(ring, 0)) if height else (NONE, NONE, NONE, nothing, 0)
    columns = wide.columns if wide else (NONE.astype(np.int32), nothing, 0, 0)
    size = dtype.itemsize * (h * w + p * q)
    planes, block = max(1, CHUNK // size), max(1, min(p, CHUNK * p // size))
    room = 0 if ring < 0 or not (height and width) else ring * q or w
    work = ROW_NS * p + min(h, p) * (READ_NS * w + PLACE_NS * columns[2] * q) + TAP_NS * rows[4] * p * q
    return Pass(rows, columns, sizes, (ring, planes, p if planes > 1 else block), room, nothing.reshape(1, 0), work)


def _planes(x: np.ndarray, y: np.ndarray, how: Pass) -> None:
    """Resample flat x to flat y."""
    rows, columns, sizes, plan, room, nothing, work = how
    workers = threads.workers(work * (x.size // (sizes[0] * sizes[1])))
    scratch = empty((workers, room + APART), x.dtype) if room else nothing
    marks = fresh((workers, plan[0] + APART), np.int64) if plan[0] > 0 else NOWHERE
    kernels.resize(x, y, rows, columns, sizes, scratch, marks, plan, workers)


def _run(ins: list, outs: list, axes: tuple, transpose: bool) -> None:
    x, y = ins[0], outs[0]
    if not y.size:
        return
    flat, result = np.ascontiguousarray(x).reshape(-1), y.reshape(-1)
    *deep, height, width = [None] * (2 - len(axes)) + [(axis, x.dtype, transpose) for axis in axes]
    (d, h, w), (o, p, q) = ((1,) * (3 - len(axes)) + tuple(a.shape[2:]) for a in (x, y))
    if not deep:
        _planes(flat, result, _pass(height, width, x.dtype, (h, w, p, q)))
        return
    m = x.shape[0] * x.shape[1]
    if o >= d:
        middle = empty((m * d * p * q,), x.dtype)
        _planes(flat, middle, _pass(height, width, x.dtype, (h, w, p, q)))
        _planes(middle, result, _pass(deep[0], None, x.dtype, (d, p * q, o, p * q)))
    else:
        middle = empty((m * o * h * w,), x.dtype)
        _planes(flat, middle, _pass(deep[0], None, x.dtype, (d, h * w, o, h * w)))
        _planes(middle, result, _pass(height, width, x.dtype, (h, w, p, q)))


resize_p = Primitive(
    "interpolate",
    shape=lambda x, axes, transpose: (Aval((*x.shape[:2], *_resized(axes, transpose)), x.dtype),),
    cpu=_run,
    vjp=lambda g, ins, out, axes, transpose: (resize_p(g, axes=axes, transpose=not transpose),),
    batch=lambda n, ins, batched, **how: unfold_batch(resize_p(fold(ins[0]), **how), n),
    keeps="",
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
