"""The structural primitives: the same elements under another shape, dtype or owner, and their sum.

They are closed under their own derivatives: expand and sum, slice and slice_place, reshape, permute, cast, clone. So they need
no other operation, and every family may use them. reshape, permute, expand, slice and detach are views: they share memory,
and say by ``unview`` how a write to the view changes its base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core.aval import Aval
from funcnn.core.context import ctx
from funcnn.core.device import HOST, device_of
from funcnn.core.errors import ShapeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor, constant, wrap
from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.creation.launch import FULL
from funcnn.kernels.cpu.movement import host
from funcnn.kernels.cpu.movement.launch import copies
from funcnn.kernels.cpu.reduce import functions
from funcnn.kernels.cpu.reduce.launch import blocked_sum
from funcnn.ops.base import costs
from funcnn.ops.base.dims import normalize_dims, numel
from funcnn.ops.base.reduction import kept, reduction_primitive

_ndarray = np.ndarray


# ---- reshape and permute ----------------------------------------------------------------------------------------------
def _reshape_shape(x: Any, shape: tuple) -> tuple:
    if numel(tuple(x.shape)) != numel(shape):
        raise ShapeError(f"reshape: shape {shape} does not fit the {x.size} elements of shape {tuple(x.shape)}")
    return (Aval(shape, x.dtype),)


reshape_p = Primitive(
    "reshape",
    _reshape_shape,
    view=lambda x, shape: x.reshape(shape),
    unview=lambda base, new, shape: reshape_p(new, shape=base._v.shape),
    vjp=lambda g, ins, o, shape: (reshape_p(g, shape=ins[0]._v.shape),),
    batch=lambda n, ins, batched, shape: reshape_p(ins[0], shape=(n, *shape)),
    keeps="",
    may_copy=True,
)


def _inverse(dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(dims)), key=dims.__getitem__))


permute_p = Primitive(
    "permute",
    shape=lambda x, dims: (Aval(tuple(x.shape[d] for d in dims), x.dtype),),
    view=lambda x, dims: x.transpose(dims),
    unview=lambda base, new, dims: permute_p(new, dims=_inverse(dims)),
    vjp=lambda g, ins, o, dims: (permute_p(g, dims=_inverse(dims)),),
    batch=lambda n, ins, batched, dims: permute_p(ins[0], dims=(0, *(d + 1 for d in dims))),
    keeps="",
)


# ---- expand and sum ---------------------------------------------------------------------------------------------------
def _expand_shape(x: Any, shape: tuple) -> tuple:
    lead = len(shape) - x.ndim
    if lead < 0 or any(d not in (1, s) for d, s in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(f"expand: shape {tuple(x.shape)} cannot be expanded to {shape}; only sizes of 1 can grow")
    return (Aval(shape, x.dtype),)


def _expanded(x: np.ndarray, shape: tuple) -> np.ndarray:
    """Read-only where elements are shared; with only leading sizes of 1 added it may be written."""
    return x.reshape(shape) if x.size == numel(shape) else np.broadcast_to(x, shape)


def _expand_unview(base: Tensor, new: Tensor, shape: tuple) -> Tensor:
    if base._v.size == new._v.size:
        return reshape_p(new, shape=base._v.shape)
    raise ShapeError(f"an expanded tensor of shape {shape} shares elements and cannot be written in place; .clone() it")


def _expand_batch(n: int, ins: list, batched: list, shape: tuple) -> Tensor:
    x = ins[0]
    lead = len(shape) - (x.ndim - 1)
    own = x._v.shape
    return expand_p(reshape_p(x, shape=(own[0], *(1,) * lead, *own[1:])), shape=(n, *shape))


expand_p = Primitive(
    "expand",
    _expand_shape,
    view=_expanded,
    unview=_expand_unview,
    vjp=lambda g, ins, o, shape: (unbroadcast(g, ins[0]._v.shape),),
    batch=_expand_batch,
    keeps="",
)


sum_p = reduction_primitive(
    "sum", functions.sums, lambda g, x, o, axes: repeat_over(g, x._v.shape, axes), keeps="", numpy=blocked_sum
)


def repeat_over(g: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Broadcasts a reduced value over the axes from which it was reduced: the transpose of a sum."""
    return expand_p(reshape_p(g, shape=kept(shape, axes)), shape=tuple(shape))


def reduce(prim: Primitive, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Applies a reduction primitive in PyTorch's terms."""
    shape = x._v.shape
    axes = normalize_dims(prim.name, dim, len(shape))
    out = prim(x, axes=axes)
    return reshape_p(out, shape=kept(shape, axes)) if keepdim and axes else out


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums a cotangent over the axes along which an input of ``shape`` was broadcast: the transpose of broadcasting."""
    have = g._v.shape
    shape = tuple(shape)
    if have == shape:
        return g
    lead = len(have) - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, d in enumerate(shape) if d == 1 and have[lead + i] != 1)
    summed = sum_p(g, axes=axes) if axes else g
    return summed if summed._v.shape == shape else reshape_p(summed, shape=shape)


# ---- slice ------------------------------------------------------------------------------------------------------------
def _slice_sizes(starts: tuple, stops: tuple, steps: tuple) -> tuple[int, ...]:
    return tuple(max(0, -(-(b - a) // c)) for a, b, c in zip(starts, stops, steps, strict=True))


def _slice_batch(n: int, ins: list, batched: list, starts: tuple, stops: tuple, steps: tuple) -> Tensor:
    return slice_p(ins[0], starts=(0, *starts), stops=(n, *stops), steps=(1, *steps))


slice_p = Primitive(
    "slice",
    shape=lambda x, starts, stops, steps: (Aval(_slice_sizes(starts, stops, steps), x.dtype),),
    view=host.sliced,
    unview=lambda base, new, **section: slice_put_p(base, new, **section),
    vjp=lambda g, ins, o, **section: (slice_place(g, ins[0], section),),
    batch=_slice_batch,
    keeps="",
)


def slice_place(g: Tensor, like: Tensor, section: dict) -> Tensor:
    """Puts ``g`` into the slice of zeros of the shape of ``like``."""
    return slice_place_p(g, shape=like._v.shape, **section)


def _slice_place_batch(
    n: int, ins: list, batched: list, shape: tuple, starts: tuple, stops: tuple, steps: tuple
) -> Tensor:
    return slice_place_p(ins[0], shape=(n, *shape), starts=(0, *starts), stops=(n, *stops), steps=(1, *steps))


slice_place_p = Primitive(
    "slice_place",
    lambda new, shape, starts, stops, steps: (Aval(shape, new.dtype),),
    cpu=host.SLICE_PLACE,
    vjp=lambda g, ins, o, shape, **section: (slice_p(g, **section),),
    batch=_slice_place_batch,
    keeps="",
    flops=costs.none,
)


def _slice_put_shape(base: Any, new: Any, starts: tuple, stops: tuple, steps: tuple) -> tuple:
    if tuple(new.shape) != _slice_sizes(starts, stops, steps) or new.dtype != base.dtype:
        raise ShapeError(f"slice: a value {tuple(new.shape)} does not fit {_slice_sizes(starts, stops, steps)}")
    return (base,)


def _slice_put_vjp(g: Tensor, ins: list, o: Tensor, **section: Any) -> tuple:
    hole = zeros_like(ins[1])
    return lambda: slice_put_p(g, hole, **section), lambda: slice_p(g, **section)


def _slice_put_batch(n: int, ins: list, batched: list, starts: tuple, stops: tuple, steps: tuple) -> Tensor:
    base, new = (x if b else expand_p(x, shape=(n, *x._v.shape)) for x, b in zip(ins, batched, strict=True))
    return slice_put_p(base, new, starts=(0, *starts), stops=(n, *stops), steps=(1, *steps))


slice_put_p = Primitive(
    "slice_put",
    _slice_put_shape,
    cpu=host.SLICE_PUT,
    vjp=_slice_put_vjp,
    batch=_slice_put_batch,
    keeps="",
    flops=costs.none,
)


# ---- copies -----------------------------------------------------------------------------------------------------------
def _cast_shape(x: Any, dtype: np.dtype) -> tuple:
    return (Aval(x.shape, dtype),)


cast_p = Primitive(
    "to",
    shape=_cast_shape,
    cpu=host.CAST,
    vjp=lambda g, ins, y, dtype: (cast(g, ins[0].dtype),),
    batch=lambda n, ins, batched, dtype: cast_p(ins[0], dtype=dtype),
    keeps="",
    flops=costs.none,
)


def cast(x: Tensor, dtype: np.dtype) -> Tensor:
    """Copies to another dtype; returns the tensor itself if it has that dtype already."""
    if x._v.dtype == dtype:
        return x if ctx.stage is None else ctx.stage.exact(x)
    return cast_p(x, dtype=dtype)


clone_p = Primitive(
    "clone",
    shape=lambda x: (x,),
    cpu=copies,
    vjp=lambda g, ins, o: (g,),
    batch=lambda n, ins, batched: clone_p(ins[0]),
    keeps="",
    flops=costs.none,
)


stop_gradient_p = Primitive(
    "detach",
    shape=lambda x: (x,),
    view=lambda x: x,
    unview=lambda base, new: new,
    vjp=lambda g, ins, o: (None,),
    batch=lambda n, ins, batched: stop_gradient_p(ins[0]),
    keeps="",
)


# ---- filled -----------------------------------------------------------------------------------------------------------
full_p = Primitive(
    "full",
    lambda shape, value, dtype, device=HOST: (Aval(shape, dtype),),
    cpu=FULL,
    flops=costs.none,
)


def inside() -> bool:
    """Whether a transformation runs, inside which new tensors come from primitives."""
    return ctx.stage is not None or ctx.top is not None


def on(device: str) -> dict[str, str]:
    """Returns the parameters that name the device of a primitive without inputs; none for the host."""
    return {} if device == HOST else {"device": device}


def filled(shape: tuple[int, ...], value: Any, dtype: np.dtype, device: str = HOST) -> Tensor:
    """Makes a tensor filled with one number, by ``full_p`` on other devices and inside a transformation."""
    if device != HOST or inside():
        return full_p(shape=shape, value=value, dtype=dtype, **on(device))
    return wrap(memory.filled(shape, dtype, value))


def filled_like(t: Tensor, value: Any) -> Tensor:
    """Makes a tensor of the shape and dtype of ``t``, on its device, filled with one number."""
    return filled(t._v.shape, value, t._v.dtype, device_of(t._v))


def zeros_like(t: Tensor) -> Tensor:
    """Makes zeros of the shape and dtype of ``t``, on its device."""
    return filled_like(t, 0)


def tabulated(
    name: str, shape: Callable[..., Aval], make: Callable[..., np.ndarray], flops: costs.Rule = costs.none
) -> Callable[..., Tensor]:
    """Makes a function ``f(device, **params)`` that returns a table which depends on static parameters alone, and its primitive.

    shape: what the table is; make: its numbers, both of the parameters. Outside every transformation the host makes it at
    once; elsewhere it is what the primitive gives, so that a rule that reads it makes no array.
    """
    prim = Primitive(
        name,
        lambda device=HOST, **params: (shape(**params),),
        cpu=host.table(make),
        flops=flops,
    )

    def function(device: str, **params: Any) -> Tensor:
        return prim(**params, **on(device)) if device != HOST or inside() else wrap(make(**params))

    function.primitive = prim  # type: ignore[attr-defined]
    return function


def number_like(t: Tensor, value: float, dtype: np.dtype | None = None) -> Tensor:
    """Makes a 0-d tensor of a number on the device of ``t``, of its dtype unless another is given."""
    like = t._v
    dtype = like.dtype if dtype is None else dtype
    if type(like) is _ndarray and ctx.stage is None and ctx.top is None:
        return wrap(np.array(value, dtype))
    if (device := device_of(like)) == HOST:
        return constant(np.array(value, dtype))
    return full_p(shape=(), value=value, dtype=dtype, device=device)
