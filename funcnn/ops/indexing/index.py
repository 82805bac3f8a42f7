"""Indexing: ``x[...]`` with every kind of index, index_select, masks and what they hold.

Basic indices (ints, slices, None, Ellipsis) are views. Integer tensors, lists and masks go through one primitive that
indexes the leading dimensions; permuting them to the front and the result back gives PyTorch's placement.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval, is_concrete
from funcnn.core.context import ctx
from funcnn.core.device import HOST, device_of
from funcnn.core.errors import ShapeError, TracerError
from funcnn.core.interpreter import numbers
from funcnn.core.primitive import Primitive, evaluate, quietly
from funcnn.core.tensor import Tensor, concrete, constant, refresh
from funcnn.kernels.cpu.indexing import launch, mask_launch
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched
from funcnn.ops.base.dims import broadcast, normalize_dim, numel
from funcnn.ops.base.promote import stored, to_tensor
from funcnn.ops.base.structure import cast, reshape_p, zeros_like
from funcnn.ops.elementwise.select import where as choose
from funcnn.ops.indexing.along import blank, one_dim, out_of_range
from funcnn.ops.movement.views import apart, expand, movedim, reshape, select, slice_dim, unsqueeze
from funcnn.ops.tensor.creation import arange, as_tensor, carried
from funcnn.ops.tensor.inplace import overwrite, write


# ---- primitives on the leading dimensions -----------------------------------------------------------------------------
def _index_shape(x: Any, *indices: Any) -> tuple:
    if len(indices) > len(x.shape):
        raise IndexError(f"index: {len(indices)} indices for {len(x.shape)} dimensions")
    return (Aval((*indices[0].shape, *x.shape[len(indices) :]), x.dtype),)


def _index_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    x, *indices = ins
    return (lambda: index_put_p(blank(x), g, *indices, accumulate=True), *(None,) * len(indices))


def _with_batch(n: int, indices: list, batched: list) -> list:
    """The indices with the batch as one more, so that example i indexes row i."""
    shape = next(t._v.shape[1:] if b else t._v.shape for t, b in zip(indices, batched, strict=True))
    rows = reshape(arange(n, device=indices[0].device), (n, *(1,) * len(shape)))
    return [expand(rows, (n, *shape)), *all_batched(n, indices, batched)]


def _index_batch(n: int, ins: list, batched: list) -> Tensor:
    x, *indices = ins
    if not any(batched[1:]):
        k, out_rank = len(indices), indices[0].ndim
        return movedim(index_p(movedim(x, 0, k), *indices), out_rank, 0)
    if not batched[0]:
        return index_p(x, *all_batched(n, indices, batched[1:]))
    return index_p(x, *_with_batch(n, indices, batched[1:]))


index_p = Primitive(
    "index", _index_shape, cpu=launch.INDEX_AT, looks=launch.LOOK_AT, vjp=_index_vjp, batch=_index_batch,
    refuse=lambda meaning, words, ins: out_of_range("index", words, ins[0], words[1] - 1),
    flops=costs.none, bytes=costs.gathered,
)  # fmt: skip


def _put_shape(base: Any, values: Any, *indices: Any, accumulate: bool) -> tuple:
    (wanted,) = _index_shape(base, *indices)
    if tuple(values.shape) != tuple(wanted.shape) or values.dtype != base.dtype:
        raise ShapeError(f"index_put: values {values.dtype}{tuple(values.shape)} for {base.dtype}{tuple(wanted.shape)}")
    return (base,)


def _put_vjp(g: Tensor, ins: list, o: Tensor, accumulate: bool) -> tuple:
    values, indices = ins[1], ins[2:]
    hole = zeros_like(values)
    base = g if accumulate else (lambda: index_put_p(g, hole, *indices, accumulate=False))
    return (base, lambda: index_p(g, *indices), *(None,) * len(indices))


def _put_batch(n: int, ins: list, batched: list, accumulate: bool) -> Tensor:
    base, values = all_batched(n, ins[:2], batched[:2])
    return index_put_p(base, values, *_with_batch(n, ins[2:], batched[2:]), accumulate=accumulate)


index_put_p = Primitive(
    "index_put", _put_shape, cpu=launch.INDEX_PUT, looks=launch.LOOK_PUT, vjp=_put_vjp, batch=_put_batch,
    refuse=lambda meaning, words, ins, accumulate: out_of_range("index", words, ins[0], words[1] - 2),
    flops=costs.none,
)  # fmt: skip


# ---- x[...] -----------------------------------------------------------------------------------------------------------
def _is_array(item: Any) -> bool:
    return isinstance(item, (Tensor, np.ndarray, list, range, bool, np.bool_))


def _as_index(item: Any, x: Tensor) -> list[Tensor | int | slice | None]:
    """An array-like index of ``x`` as integer tensors; a mask as the indices of what it holds."""
    if isinstance(item, Tensor):
        t = item
    else:
        array = np.asarray(list(item) if isinstance(item, range) else item)
        t = to_tensor(array.astype(np.int64) if isinstance(item, list) and not item else array)
        if type(x._v) is not np.ndarray and (device := device_of(x._v)) != HOST:
            t = carried(t, device)
    if t._v.dtype == dtypes.bool_:
        return list(nonzero(t, as_tuple=True))
    if t._v.dtype.kind not in "iu":
        raise IndexError(f"index: tensors used as indices must be integers or bools, got {t.dtype}")
    return [cast(t, dtypes.int64)]


def _consumed(item: Any) -> int:
    """How many dimensions an index uses up."""
    if item is None or item is Ellipsis or isinstance(item, (bool, np.bool_)):
        return 0
    if isinstance(item, Tensor) and item._v.dtype == dtypes.bool_:
        return item.ndim
    if isinstance(item, (np.ndarray, list)) and np.asarray(item).dtype == np.bool_:
        return np.asarray(item).ndim
    return 1


def _expanded(index: Any, ndim: int) -> list:
    items = list(index) if isinstance(index, tuple) else [index]
    used = sum(map(_consumed, items))
    if used > ndim:
        raise IndexError(f"index: too many indices, {used} for a tensor of {ndim} dimensions")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise IndexError("index: an index can have only one ellipsis")
    if dots:
        items[dots[0] : dots[0] + 1] = [slice(None)] * (ndim - used)
    return items


def _slice(x: Tensor, dim: int, item: slice) -> Tensor:
    start, stop, step = item.indices(x._v.shape[dim])
    if step <= 0:
        raise ValueError(f"index: slice steps must be positive, got {step}; use flip for the reverse order")
    if (start, stop, step) == (0, x._v.shape[dim], 1):
        return x
    return slice_dim(x, dim, start, max(start, stop), step)


def _picked(x: Tensor, dim: int, index: int, named: int) -> Tensor:
    """``x`` at one index of ``dim``, which is dimension ``named`` of the tensor that the user indexed."""
    size = x._v.shape[dim]
    if not -size <= index < size:
        raise IndexError(f"index: index {index} is out of range for dimension {named} of size {size}")
    return select(x, dim, index)


def _mask_matches(x: Tensor, dim: int, item: Any) -> None:
    shape = tuple(item._v.shape) if isinstance(item, Tensor) else np.shape(item)
    if tuple(x._v.shape[dim : dim + len(shape)]) != tuple(shape):
        raise IndexError(f"index: a mask of shape {tuple(shape)} does not match {tuple(x.shape)} at dimension {dim}")


def _basic(x: Tensor, index: Any) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Apply all basic parts as views; the integer tensors that remain, with the dimensions they index."""
    dim, added, rank = 0, 0, x.ndim
    arrays: list[tuple[int, Tensor]] = []
    for item in _expanded(index, x.ndim):
        if item is None:
            x = unsqueeze(x, dim)
            dim, added = dim + 1, added + 1
        elif isinstance(item, slice):
            x = _slice(x, dim, item)
            dim += 1
        elif isinstance(item, (bool, np.bool_)) or (isinstance(item, Tensor) and item.ndim == 0 and _is_mask(item)):
            x = unsqueeze(x, dim)
            arrays.append((dim, arange(int(bool(item)), device=x.device)))
            dim, added = dim + 1, added + 1
        elif _is_array(item):
            if _consumed(item) != 1 or _is_mask(item):
                _mask_matches(x, dim, item)
            for t in _as_index(item, x):
                arrays.append((dim, t))  # type: ignore[arg-type]
                dim += 1
        elif hasattr(item, "__index__"):
            x = _picked(x, dim, item.__index__(), rank - x.ndim + dim + added)
        else:
            raise IndexError(f"index: expected ints, slices, None, ..., tensors or lists, got {type(item).__name__}")
    return x, arrays


def _is_mask(item: Any) -> bool:
    return (item._v.dtype if isinstance(item, Tensor) else np.asarray(item).dtype) == np.bool_


def _front(x: Tensor, arrays: list) -> tuple[Tensor, list[Tensor], int]:
    """Indexed dimensions moved to the front, the indices broadcast, and where the result's index dimensions belong."""
    dims = [dim for dim, _ in arrays]
    shape = broadcast("index", *[tuple(t._v.shape) for _, t in arrays])
    indices = [t if tuple(t._v.shape) == shape else expand(t, shape) for _, t in arrays]
    together = dims == list(range(dims[0], dims[0] + len(dims)))
    leading = list(range(len(dims)))
    return x if dims == leading else movedim(x, dims, leading), indices, dims[0] if together else 0


def getitem(x: Tensor, index: Any) -> Tensor:
    """``x[index]``: a view for basic indices, a copy for tensors, lists and masks. Raises ``IndexError``."""
    seen, arrays = _basic(x, index)
    if not arrays:
        return reshape_p(x, shape=tuple(x._v.shape)) if seen is x else seen
    front, indices, place = _front(seen, arrays)
    out = index_p(front, *indices)
    rank = indices[0].ndim
    return out if place == 0 else movedim(out, list(range(rank)), list(range(place, place + rank)))


def setitem(x: Tensor, index: Any, value: Any) -> None:
    """``x[index] = value``, in place; ``value`` is converted and broadcast."""
    value = stored("index_put_", value, x._v.dtype, x.device)
    if _traceable_mask(x, index, value):
        write(x, masked_fill(x, index, value), "index_put_")
        return
    target, arrays = _basic(x, index)
    if not arrays:
        overwrite(target, _fitted(value, tuple(target._v.shape)), "index_put_")
        return
    front, indices, place = _front(target, arrays)
    rank, k = indices[0].ndim, len(indices)
    shape = tuple(indices[0]._v.shape) + tuple(front._v.shape[k:])
    if place:
        placed = shape[rank : rank + place] + shape[:rank] + shape[rank + place :]
        value = movedim(_fitted(value, placed), list(range(place, place + rank)), list(range(rank)))
    new = index_put_p(front, _fitted(value, shape), *indices, accumulate=False)
    leading, dims = list(range(k)), [dim for dim, _ in arrays]
    write(target, new if dims == leading else movedim(new, leading, dims), "index_put_")


def _traceable_mask(x: Tensor, index: Any, value: Tensor) -> bool:
    return isinstance(index, Tensor) and index._v.dtype == dtypes.bool_ and value.ndim == 0 and x.shape == index.shape


def _fitted(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    own = tuple(value._v.shape)
    if own == shape:
        return value
    while len(own) > len(shape) and own[0] == 1:
        own = own[1:]
    if len(own) > len(shape) or any(a not in (1, b) for a, b in zip(own[::-1], shape[::-1], strict=False)):
        raise ShapeError(f"index_put_: a value of shape {tuple(value.shape)} does not broadcast to {shape}")
    return expand(reshape(value, own), shape)


def index_put(input: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """A copy with ``values`` put (or added, repeated indices adding up) at ``indices``, integers or masks."""
    x = to_tensor(input)
    arrays: list = list(enumerate(part for t in indices for part in _as_index(t, x)))
    front, broadcasted, _ = _front(x, arrays)
    shape = tuple(broadcasted[0]._v.shape) + tuple(front._v.shape[len(arrays) :])
    values = cast(to_tensor(values), front._v.dtype)
    if values.ndim > len(shape):
        raise ShapeError(f"index_put: a value of shape {tuple(values.shape)} does not broadcast to {shape}")
    return index_put_p(front, _fitted(values, shape), *broadcasted, accumulate=accumulate)


# ---- along one dimension ----------------------------------------------------------------------------------------------


def index_select(input: Any, dim: int, index: Any) -> Tensor:
    """The slices of dimension ``dim`` named by a vector of integers."""
    x, index = to_tensor(input), to_tensor(index)
    dim = normalize_dim("index_select", dim, x.ndim)
    if index.ndim > 1 or index._v.dtype.kind not in "iu":
        raise IndexError(
            f"index_select: expected a vector of integers, got {index.dtype} of shape {tuple(index.shape)}"
        )
    if x.ndim == 0 and index._v.size != 1:
        raise ShapeError(f"index_select: a 0-d tensor takes one index, got {index._v.size}")
    out = index_p(movedim(x, dim, 0) if dim else one_dim(x), one_dim(index))
    return movedim(out, 0, dim) if dim else out if x.ndim else reshape(out, ())


def take(input: Any, index: Any) -> Tensor:
    """Elements of the flattened tensor."""
    x = to_tensor(input)
    return index_p(reshape(x, (x._v.size,)), to_tensor(index))


# ---- masks ------------------------------------------------------------------------------------------------------------
def masked_fill(input: Any, mask: Any, value: Any) -> Tensor:
    """``value`` (a number or 0-d tensor) where ``mask`` holds."""
    x = to_tensor(input)
    value = stored("masked_fill", value, x._v.dtype, x.device)
    if value.ndim:
        raise ShapeError(
            f"masked_fill: value must be a number or a 0-d tensor, got shape {tuple(value.shape)}; use where"
        )
    return choose(mask, value, x)


def masked_select(input: Any, mask: Any) -> Tensor:
    """The elements where ``mask`` holds, as a vector; both are broadcast."""
    x, m = to_tensor(input), to_tensor(mask)
    shape = broadcast("masked_select", tuple(x._v.shape), tuple(m._v.shape))
    return getitem(expand(x, shape), expand(m, shape))


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition`` holds, else ``other``; all broadcast. With the condition alone: its indices."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return choose(condition, input, other)


def _nonzero_shape(mask: Any, by_axis: bool) -> tuple:
    """A bound: all elements. The runtime hands out as many places as there are."""
    size, axes = numel(tuple(mask.shape)), len(mask.shape)
    return (Aval((axes, size) if by_axis else (size, axes), dtypes.int64),)


nonzero_p = Primitive("nonzero", _nonzero_shape, cpu=mask_launch.NONZERO, flops=costs.none)  # no rule knows its size


def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The indices of all non-zero elements: (count, ndim), or one vector for each dimension with ``as_tuple``.

    The count depends on the values, so a tensor that ``jit`` or ``vmap`` traces raises ``TracerError``.
    """
    x = to_tensor(input)
    if (value := numbers(refresh(x))) is None:
        if is_concrete(x._v) and ctx.stage is None:
            concrete(x, "nonzero, whose size depends on the numbers, of")  # raises: they are elsewhere
        raise TracerError(
            f"nonzero: a mask of shape {tuple(x.shape)} is traced, so the shape of what it selects is not known; "
            "use where(mask, a, b) or masked_fill"
        )
    if x.ndim == 0 and not as_tuple:
        return constant(np.zeros((int(bool(value)), 0), np.int64))
    mask = value if value.dtype == dtypes.bool_ else quietly(np.not_equal, value, 0)
    (found,) = evaluate(nonzero_p, [np.atleast_1d(mask)], {"by_axis": as_tuple})
    return tuple(constant(i) for i in found) if as_tuple else constant(found)


# ---- repeating --------------------------------------------------------------------------------------------------------
def repeat_interleave(input: Any, repeats: Any, dim: int | None = None) -> Tensor:
    """Each element (along ``dim``, or of the flattened tensor) ``repeats`` times in a row; repeats may be a tensor."""
    x = to_tensor(input)
    if dim is None:
        x, dim = reshape(x, (x._v.size,)), 0
    dim = normalize_dim("repeat_interleave", dim, x.ndim)
    if isinstance(repeats, int):
        shape = tuple(x._v.shape)
        wide = expand(unsqueeze(x, dim + 1), (*shape[: dim + 1], repeats, *shape[dim + 1 :]))
        return apart(reshape(wide, (*shape[:dim], shape[dim] * repeats, *shape[dim + 1 :])), x)
    counts = to_tensor(repeats).numpy()  # type: ignore[attr-defined]
    return index_select(x, dim, as_tensor(np.repeat(np.arange(x._v.shape[dim]), counts), device=x.device))
