"""What the reductions are made of: their factory, PyTorch's reading of ``dim`` and ``keepdim``, and an accurate sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from funcnn.core.aval import Aval
from funcnn.core.primitive import Implementation, Primitive
from funcnn.core.tensor import Tensor
from funcnn.ops.common import normalize_dims
from funcnn.ops.movement import expand_p, reshape_p

_BLOCK = 256  # rows added one after another; the rounding error grows with it, the number of partial sums shrinks


class ValuesIndices(NamedTuple):
    """What a reduction along one dimension found, and where."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """The smallest and the largest."""

    min: Tensor
    max: Tensor


@lru_cache(4096)
def kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with 1 at the reduced axes."""
    return tuple([1 if i in axes else s for i, s in enumerate(shape)])


@lru_cache(4096)
def dropped(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` without the reduced axes."""
    return tuple([s for i, s in enumerate(shape) if i not in axes])


def spread(g: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """A reduced value repeated over the axes it was reduced from: the transpose of a sum."""
    return expand_p(reshape_p(g, shape=kept(shape, axes)), shape=tuple(shape))


def reduction(
    name: str,
    loop: Callable,
    vjp: Callable | None,
    keeps: str,
    dtype: Any = None,
    empty: bool = True,
    fast: Implementation | None = None,
) -> Primitive:
    """A primitive reducing over ``axes``.

    loop: ``(array, axes, out)``. empty: defined for no elements at all. fast: the implementation where it applies.
    """
    plain = Implementation(lambda ins, outs, axes: loop(ins[0], axes, outs[0]))

    def shape(x: Any, axes: tuple) -> tuple:
        if not empty and any(x.shape[a] == 0 for a in axes):
            raise IndexError(
                f"{name}: cannot reduce dimension(s) {axes} of shape {tuple(x.shape)}: there is no element"
            )
        return (Aval(dropped(x.shape, axes), dtype or x.dtype),)

    prim = Primitive(
        name,
        shape,
        cpu=(plain,) if fast is None else (fast, plain),
        vjp=vjp,
        batch=lambda n, ins, batched, axes: prim(ins[0], axes=tuple(a + 1 for a in axes)),
        keeps=keeps,
    )
    return prim


def all_if_empty(dim: Any) -> Any:
    """PyTorch's sums and extrema take an empty list of dimensions for all of them."""
    return None if isinstance(dim, (tuple, list)) and not dim else dim


def reduce(prim: Primitive, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Apply a reduction primitive in PyTorch's terms."""
    shape = x._v.shape
    axes = normalize_dims(prim.name, dim, len(shape))
    out = prim(x, axes=axes)
    return reshape_p(out, shape=kept(shape, axes)) if keepdim and axes else out


def blocked_sum(x: np.ndarray, axes: tuple, out: np.ndarray) -> None:
    """Add up in blocks along a strided axis: NumPy adds pairwise only along contiguous memory, one by one elsewhere."""
    if x.size <= 2 * _BLOCK and x.dtype != np.float16:
        np.add.reduce(x, axes, out=out)
        return
    if x.dtype == np.float16:  # its running sums would stop growing at 2048
        out[...] = np.sum(x, axis=axes, dtype=np.float32)
        return
    axis = max(axes, key=x.shape.__getitem__, default=None)
    if axis is not None and x.dtype == np.float32 and x.shape[axis] > 2 * _BLOCK and x.strides[axis] != x.itemsize:
        blocks = x.shape[axis] // _BLOCK
        head, tail = np.split(x, [blocks * _BLOCK], axis)
        parts = head.reshape(*x.shape[:axis], blocks, _BLOCK, *x.shape[axis + 1 :]).sum(axis + 1)
        blocked_sum(np.concatenate([parts, tail.sum(axis, keepdims=True)], axis), axes, out)
        return
    np.add.reduce(x, axes, out=out)
