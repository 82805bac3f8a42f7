"""Gather and scatter along a dimension, each the derivative of the other."""

from __future__ import annotations

from typing import Any

from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.graph import rescue
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.indexing import launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import broadcast, normalize_dim, numel
from funcnn.ops.base.promote import stored, to_tensor
from funcnn.ops.base.structure import cast, filled, zeros_like
from funcnn.ops.elementwise.arithmetic import mul, true_divide
from funcnn.ops.elementwise.select import where
from funcnn.ops.movement.views import expand, reshape, slice_dim

ELEMENTS_FOR_VIEW = 1 << 14  # elements from which writing zeros twice costs more than a view


def _gather_shape(x: Any, index: Any, dim: int) -> tuple:
    if len(index.shape) != len(x.shape) or any(
        i > s for d, (i, s) in enumerate(zip(index.shape, x.shape, strict=True)) if d != dim
    ):
        raise ShapeError(
            f"gather: index of shape {tuple(index.shape)} must have the rank of {tuple(x.shape)} and be no larger "
            f"except in dimension {dim}"
        )
    if index.dtype.kind not in "iu":
        raise DTypeError(f"gather: index must be an integer tensor, got {index.dtype}")
    return (Aval(tuple(index.shape), x.dtype),)


def blank(t: Tensor) -> Tensor:
    """Zeros like ``t`` for a scatter to begin with; many of them are one, repeated, which the scatter writes out by itself."""
    value = t._v
    if numel(tuple(value.shape)) < ELEMENTS_FOR_VIEW:
        return zeros_like(t)
    return expand(filled((), 0, value.dtype, t.device), tuple(value.shape))


def _gather_vjp(g: Tensor, ins: list, o: Tensor, dim: int) -> tuple:
    x, index = ins
    return lambda: scatter_p(blank(x), index, g, dim=dim, mode="add"), None


gather_p = Primitive(
    "gather",
    _gather_shape,
    cpu=launch.GATHER,
    looks=launch.LOOK_ALONG,
    vjp=_gather_vjp,
    batch=lambda n, ins, batched, dim: gather_p(*all_batched(n, ins, batched), dim=dim + 1),
    refuse=lambda meaning, words, ins, dim: out_of_range("gather", words, ins[0], dim),
    flops=costs.none,
    bytes=costs.gathered,
)


def out_of_range(name: str, words: tuple, x: Any, dim: int) -> IndexError:
    """The exception for an index of ``x`` along ``dim`` that was refused."""
    return IndexError(f"{name}: index {words[3]} is out of range for dimension {dim} of size {x.shape[dim]}")


def gather(input: Any, dim: int, index: Any) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` (for dim 0): at each point of ``index``, coordinate ``dim`` replaced by it."""
    x, index = to_tensor(input), to_tensor(index)
    dim = normalize_dim("gather", dim, x.ndim)
    if x.ndim and index.ndim:
        return gather_p(x, index, dim=dim)
    return reshape(gather_p(one_dim(x), one_dim(index), dim=dim), tuple(index._v.shape))


def one_dim(t: Tensor) -> Tensor:
    """A 0-d tensor as a vector of one element, others as they are: along a dimension PyTorch takes the one for the other."""
    return t if t.ndim else reshape(t, (1,))


def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Tensor:
    """As ``gather``, broadcasting the other dimensions; without ``dim`` on the flattened tensor."""
    x, index = to_tensor(input), to_tensor(indices)
    if dim is None:
        return rescue(gather(reshape(x, (x._v.size,)), 0, reshape(index, (index._v.size,))))
    dim = normalize_dim("take_along_dim", dim, x.ndim)
    rest = broadcast("take_along_dim", *[(*t._v.shape[:dim], 1, *t._v.shape[dim + 1 :]) for t in (x, index)])
    wide = [expand(t, (*rest[:dim], t._v.shape[dim], *rest[dim + 1 :])) for t in (x, index)]
    return rescue(gather(wide[0], dim, wide[1]))


def _scatter_shape(base: Any, index: Any, src: Any, dim: int, mode: str) -> tuple:
    small = all(i <= s for d, (i, s) in enumerate(zip(index.shape, base.shape, strict=False)) if d != dim)
    if len(index.shape) != len(base.shape) or tuple(src.shape) != tuple(index.shape) or not small:
        raise ShapeError(
            f"scatter: index {tuple(index.shape)} and src {tuple(src.shape)} must agree, have the rank of "
            f"{tuple(base.shape)} and be no larger except in dimension {dim}"
        )
    if src.dtype != base.dtype or index.dtype.kind not in "iu":
        raise DTypeError(f"scatter: src {src.dtype} for {base.dtype}, index {index.dtype}; convert with .to(dtype)")
    return (base,)


def _scatter_vjp(g: Tensor, ins: list, o: Tensor, dim: int, mode: str) -> tuple:
    base, index, src = ins
    if mode == "add":
        return g, None, lambda: gather_p(g, index, dim=dim)
    if mode == "set":
        hole = zeros_like(src)
        return lambda: scatter_p(g, index, hole, dim=dim, mode="set"), None, lambda: gather_p(g, index, dim=dim)
    ratio = mul(g, o)  # the product without one factor; like PyTorch's, defined where the factors are not zero
    return (
        lambda: true_divide(ratio, where(base == 0.0, 1.0, base)),
        None,
        lambda: true_divide(gather_p(ratio, index, dim=dim), src),
    )


scatter_p = Primitive(
    "scatter",
    _scatter_shape,
    cpu=launch.SCATTER,
    looks=launch.LOOK_ALONG,
    vjp=_scatter_vjp,
    batch=lambda n, ins, batched, dim, mode: scatter_p(*all_batched(n, ins, batched), dim=dim + 1, mode=mode),
    keeps="io",
    refuse=lambda meaning, words, ins, dim, mode: out_of_range("scatter", words, ins[0], dim),
    flops=costs.each(1),
)


def scatter(
    input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """A copy with ``out[index[i][j]][j] = src[i][j]`` (for dim 0); ``reduce`` "add" or "multiply" combines instead."""
    x, index = to_tensor(input), to_tensor(index)
    if reduce not in (None, "add", "multiply"):
        raise ValueError(f"scatter: reduce must be None, 'add' or 'multiply', got {reduce!r}")
    source = (
        stored("scatter", value if src is None else src, x._v.dtype, x.device) if not isinstance(src, Tensor) else src
    )
    dim, shape = normalize_dim("scatter", dim, x.ndim), tuple(x._v.shape)
    x, index = one_dim(x), one_dim(index)
    source = expand(cast(source, x._v.dtype), tuple(index._v.shape)) if source.ndim == 0 else source
    if source.ndim == index.ndim:
        for d, size in enumerate(index._v.shape):
            if source._v.shape[d] > size:
                source = slice_dim(source, d, 0, size)
    out = scatter_p(x, index, source, dim=dim, mode=reduce or "set")
    return out if shape else reshape(out, ())


def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Tensor:
    """A copy with ``out[index[i][j]][j] += src[i][j]`` (for dim 0)."""
    return scatter(input, dim, index, src, reduce="add")
