"""Joining, splitting, repeating and reversing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.movement import host
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import normalize_dim, normalize_dims, size_args
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.movement.views import apart, expand, movedim, reshape, select, slice_dim, unsqueeze


# ---- joining ----------------------------------------------------------------------------------------------------------
def _cat_shape(*parts: Any, dim: int) -> tuple:
    first = tuple(parts[0].shape)
    for part in parts[1:]:
        other = tuple(part.shape)
        if len(other) != len(first) or other[:dim] + other[dim + 1 :] != first[:dim] + first[dim + 1 :]:
            raise ShapeError(f"cat: shapes must agree except in dimension {dim}, got {[tuple(p.shape) for p in parts]}")
    total = sum(part.shape[dim] for part in parts)
    return (Aval((*first[:dim], total, *first[dim + 1 :]), parts[0].dtype),)


def _cat_vjp(g: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    ends = np.cumsum([t._v.shape[dim] for t in ins]).tolist()
    starts = [0, *ends[:-1]]
    return tuple((lambda a=a, b=b: slice_dim(g, dim, a, b)) for a, b in zip(starts, ends, strict=True))


cat_p = Primitive(
    "cat",
    _cat_shape,
    cpu=host.CAT,
    vjp=_cat_vjp,
    batch=lambda n, ins, batched, dim: cat_p(*all_batched(n, ins, batched), dim=dim + 1),
    keeps="",
    flops=costs.none,
)


def _listed(name: str, tensors: Any) -> list[Tensor]:
    if isinstance(tensors, Tensor) or not isinstance(tensors, (Sequence, np.ndarray)) or not len(tensors):
        raise DTypeError(f"{name}: expected a non-empty list or tuple of tensors, got {type(tensors).__name__}")
    parts = [to_tensor(t) for t in tensors]
    dtype = parts[0]._v.dtype
    for part in parts[1:]:
        dtype = dtypes.promote_types(dtype, part._v.dtype)
    return [cast(part, dtype) for part in parts]


def cat(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors one after another along ``dim``; other sizes must agree. Empty 1-d tensors are skipped, as in PyTorch."""
    parts = _listed("cat", tensors)
    full = [part for part in parts if part._v.shape != (0,)]
    parts = full or parts[:1]
    if parts[0].ndim == 0:
        raise ShapeError("cat: 0-d tensors cannot be concatenated; use stack")
    return cat_p(*parts, dim=normalize_dim("cat", dim, parts[0].ndim))


concat = cat


def stack(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension ``dim``."""
    parts = _listed("stack", tensors)
    shapes = {part._v.shape for part in parts}
    if len(shapes) > 1:
        raise ShapeError(f"stack: expected tensors of one shape, got {sorted(shapes)}")
    dim = normalize_dim("stack", dim, parts[0].ndim + 1)
    return cat_p(*[unsqueeze(part, dim) for part in parts], dim=dim)


def hstack(tensors: Any) -> Tensor:
    """Along dimension 1 (0 for vectors)."""
    parts = [reshape(t, (1,)) if to_tensor(t).ndim == 0 else to_tensor(t) for t in tensors]
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Any) -> Tensor:
    """Along dimension 0, vectors as rows."""
    parts = [to_tensor(t) for t in tensors]
    return cat([reshape(t, (1, -1)) if t.ndim < 2 else t for t in parts], 0)


# ---- splitting --------------------------------------------------------------------------------------------------------
def split(input: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of ``split_size`` along ``dim`` (the last may be smaller), or of the listed sizes."""
    x = to_tensor(input)
    dim = normalize_dim("split", dim, x.ndim)
    size = x._v.shape[dim]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step < 0 or (step == 0 and size):
            raise ShapeError(f"split: split_size must be positive, got {step}")
        ends = [min(a + step, size) for a in range(0, size, step)] if size else [0]
    else:
        sections = [int(s) for s in split_size_or_sections]
        if sum(sections) != size or any(s < 0 for s in sections):
            raise ShapeError(f"split: sections {sections} do not add up to dimension {dim} of size {size}")
        ends = np.cumsum(sections).tolist()
    return tuple(slice_dim(x, dim, a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True))


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal size along ``dim``, the last possibly smaller."""
    x = to_tensor(input)
    if chunks <= 0:
        raise ShapeError(f"chunk: chunks must be positive, got {chunks}")
    size = x._v.shape[normalize_dim("chunk", dim, x.ndim)]
    return split(x, max(1, -(-size // chunks)), dim)


def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Into n parts as equal as can be, or at the given indices."""
    x = to_tensor(input)
    size = x._v.shape[normalize_dim("tensor_split", dim, x.ndim)]
    if isinstance(indices_or_sections, int):
        n = indices_or_sections
        if n <= 0:
            raise ShapeError(f"tensor_split: sections must be positive, got {n}")
        return split(x, [size // n + (i < size % n) for i in range(n)], dim)
    cuts = [min(max(i + size if i < 0 else i, 0), size) for i in indices_or_sections]
    bounds = [0, *cuts, size]
    return tuple(slice_dim(x, normalize_dim("tensor_split", dim, x.ndim), a, max(a, b))
                 for a, b in zip(bounds, bounds[1:], strict=False))  # fmt: skip


def unbind(input: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, without it."""
    x = to_tensor(input)
    dim = normalize_dim("unbind", dim, x.ndim)
    return tuple(select(x, dim, i) for i in range(x._v.shape[dim]))


# ---- repeating --------------------------------------------------------------------------------------------------------
def repeat(input: Any, *repeats: Any) -> Tensor:
    """Copies of the whole tensor, ``repeats[i]`` times along dimension i; new dimensions come first."""
    x = to_tensor(input)
    times = size_args(repeats)
    if len(times) < x.ndim or any(k < 0 for k in times):
        raise ShapeError(f"repeat: {times} for shape {tuple(x.shape)}: one count of at least 0 for each dimension")
    shape = (1,) * (len(times) - x.ndim) + x._v.shape
    wide = tuple(v for pair in zip(times, shape, strict=True) for v in pair)
    thin = tuple(v for s in shape for v in (1, s))
    out = reshape(expand(reshape(x, thin), wide), tuple(k * s for k, s in zip(times, shape, strict=True)))
    return apart(out, x)


def tile(input: Any, *dims: Any) -> Tensor:
    """As ``repeat``, with missing leading counts taken as 1."""
    x, times = to_tensor(input), size_args(dims)
    return repeat(x, (1,) * (x.ndim - len(times)) + times)


# ---- reversing and rotating -------------------------------------------------------------------------------------------
flip_p = Primitive(
    "flip",
    shape=lambda x, dims: (x,),
    cpu=host.FLIP,
    vjp=lambda g, ins, o, dims: (flip_p(g, dims=dims),),
    batch=lambda n, ins, batched, dims: flip_p(ins[0], dims=tuple(d + 1 for d in dims)),
    keeps="",
    flops=costs.none,
)


def flip(input: Any, *dims: Any) -> Tensor:
    """Reversed along ``dims``, as a copy."""
    x = to_tensor(input)
    return flip_p(x, dims=normalize_dims("flip", size_args(dims), x.ndim))


def fliplr(input: Any) -> Tensor:
    """Reversed along dimension 1."""
    return flip(input, (1,))


def flipud(input: Any) -> Tensor:
    """Reversed along dimension 0."""
    return flip(input, (0,))


def roll(input: Any, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved by ``shifts`` along ``dims`` (or through the flattened tensor), the last re-entering first."""
    x = to_tensor(input)
    if dims is None:
        if not isinstance(shifts, int):
            raise ShapeError(f"roll: one shift is needed without dims, got {shifts}")
        return reshape(roll(reshape(x, (x._v.size,)), shifts, 0), x._v.shape)
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(shifts) != len(dims):
        raise ShapeError(f"roll: shifts {shifts} and dims {dims} differ in length")
    out = x
    for shift, dim in zip(shifts, dims, strict=True):
        dim = normalize_dim("roll", dim, x.ndim)
        size = x._v.shape[dim]
        at = (-shift) % size if size else 0
        if at:
            out = cat_p(slice_dim(out, dim, at, size), slice_dim(out, dim, 0, at), dim=dim)
    return apart(out, x)


def rot90(input: Any, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Rotated by ``k`` quarter turns in the plane of two dimensions, from the first towards the second."""
    x = to_tensor(input)
    a, b = (normalize_dim("rot90", d, x.ndim) for d in dims)
    out = x
    for _ in range(k % 4):
        out = flip_p(movedim(out, (a, b), (b, a)), dims=(a,))
    return apart(out, x)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Grids of coordinates from vectors; ``indexing`` "ij" or "xy"."""
    parts = [
        to_tensor(t) for t in (tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors)
    ]
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: indexing must be 'ij' or 'xy', got {indexing!r}")
    swap = indexing == "xy" and len(parts) > 1
    if swap:
        parts[0], parts[1] = parts[1], parts[0]
    shape = tuple(p._v.size for p in parts)
    grids = [expand(reshape(p, (1,) * i + (-1,) + (1,) * (len(parts) - i - 1)), shape) for i, p in enumerate(parts)]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)
