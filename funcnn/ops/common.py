"""What families of operations share: promotion, broadcasting and its transpose, alignment of batched inputs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.context import ctx
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import Primitive, quietly
from funcnn.core.tensor import Tensor, constant
from funcnn.kernels.cpu import memory


def operand(name: str, value: Any) -> Tensor:
    """``value`` as a tensor, for the operation ``name``. Raises ``DTypeError`` naming it."""
    if isinstance(value, Tensor):
        return value
    try:
        return to_tensor(value)
    except DTypeError as error:
        raise DTypeError(f"{name}: {error}") from None


def to_tensor(value: Any, dtype: np.dtype | None = None) -> Tensor:
    """A tensor, an array (sharing memory), a number or a nested list as a tensor; a given dtype is cast to."""
    if isinstance(value, Tensor):
        return value if dtype is None else cast(value, dtype)
    if isinstance(value, np.ndarray):
        known = dtypes.as_dtype(value.dtype)
        array = value.astype(known.newbyteorder("=") if dtype is None else dtype, copy=False)
        return constant(array.copy() if ctx.stage is not None else array)
    if isinstance(value, (list, tuple)):
        return from_sequence(value, dtype)
    if isinstance(value, np.generic):
        return constant(np.asarray(value, dtypes.as_dtype(value.dtype) if dtype is None else dtype))
    # A number beyond the dtype becomes infinite, as in PyTorch.
    array = quietly(dtypes.wrapped, value, dtypes.scalar_dtype(value) if dtype is None else dtype)
    return constant(array)


def from_sequence(value: list | tuple, dtype: np.dtype | None = None) -> Tensor:
    """A nested sequence of numbers, arrays or tensors as a fresh tensor; Python floats become the default float.

    Raises ``OverflowError`` for a Python number beyond an integer dtype.
    """
    if any(isinstance(item, Tensor) for item in value):
        value = [item.numpy() if isinstance(item, Tensor) else item for item in value]
    try:
        array = np.array(value)
    except ValueError as error:
        raise ShapeError(f"tensor: nested sequences must have equal lengths ({error})") from None
    if dtype is None:
        from_python = array.dtype == np.float64 and not _has_array(value)
        dtype = dtypes.default_float() if from_python or array.size == 0 else dtypes.as_dtype(array.dtype)
    elif dtype.kind in "iu" and array.size and not _has_array(value):
        for extreme in (array.min(), array.max()):
            dtypes.number("tensor", extreme, dtype)
    return constant(memory.copied(array, dtype))


def _has_array(value: Any) -> bool:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, (np.ndarray, np.generic))


def promoted(name: str, *args: Any, to_float: bool = False, exact: bool = False) -> list[Tensor]:
    """The operands as tensors of their common dtype (see ``core.dtypes``). Raises ``DTypeError`` where there is none.

    to_float: in the default float where that is no float. exact: a Python number beyond the dtype raises, else it wraps.
    """
    try:
        dtype = dtypes.result_type([_ranked(arg) for arg in args])
    except DTypeError as error:
        raise DTypeError(f"{name}: {error}") from None
    if to_float and dtype.kind != "f":
        dtype = dtypes.default_float()
    return [stored(name, arg, dtype) if exact else to_tensor(arg, dtype) for arg in args]


def stored(name: str, value: Any, dtype: np.dtype) -> Tensor:
    """``value`` as a tensor of ``dtype``, a Python number without a detour through another dtype.

    Raises ``OverflowError`` for a number that the dtype does not hold.
    """
    if isinstance(value, (int, float, np.generic)):
        return constant(dtypes.number(name, value, dtype))
    return to_tensor(value, dtype)


def _ranked(arg: Any) -> tuple[np.dtype, int]:
    if isinstance(arg, (Tensor, np.ndarray)):
        value = arg._v if isinstance(arg, Tensor) else arg
        if getattr(value, "weak", False):
            return (dtypes.default_float() if value.dtype.kind == "f" else value.dtype), 0
        return dtypes.as_dtype(value.dtype), 2 if value.ndim else 1
    if isinstance(arg, (list, tuple)):
        raise DTypeError(f"expected a tensor or a number, got a {type(arg).__name__}; use tensor(...)")
    return dtypes.scalar_dtype(arg), 0


def floating(x: Any) -> Tensor:
    """``x`` as a tensor of a floating dtype; integers become the default float."""
    t = x if isinstance(x, Tensor) else to_tensor(x)
    return t if t._v.dtype.kind == "f" else cast(t, dtypes.default_float())


def require_same_dtype(name: str, *tensors: Any) -> None:
    """Raise ``DTypeError`` unless all have one dtype (operations that do not promote: products, convolutions)."""
    dtype = tensors[0].dtype
    for t in tensors:
        if t.dtype is not dtype and t.dtype != dtype:
            listed = ", ".join([str(given.dtype) for given in tensors])
            raise DTypeError(f"{name}: expected operands of one dtype, got {listed}; convert with .to(dtype)")


@lru_cache(maxsize=4096)
def broadcast(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that ``shapes`` broadcast to. Raises ``ShapeError``."""
    rank = max(map(len, shapes))
    out = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if -axis <= len(shape)} - {1}
        if len(sizes) > 1:
            listed = " and ".join(map(str, shapes))
            raise ShapeError(f"{name}: shapes {listed} do not broadcast: sizes {sorted(sizes)} at dimension {axis}")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum a cotangent over the axes along which an input of ``shape`` was broadcast: the transpose of broadcasting."""
    have = tuple(g._v.shape)
    shape = tuple(shape)
    if have == shape:
        return g
    from funcnn.ops.movement import reshape
    from funcnn.ops.reduce import sum as sum_

    lead = len(have) - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, d in enumerate(shape) if d == 1 and have[lead + i] != 1)
    summed = sum_(g, axes) if axes else g
    return summed if tuple(summed._v.shape) == shape else reshape(summed, shape)


def aligned(ins: list[Tensor], batched: list[bool]) -> list[Tensor]:
    """Insert axes behind the batch axis so that batched and unbatched inputs broadcast as their examples do."""
    from funcnn.ops.movement import reshape

    rank = max(t.ndim - b for t, b in zip(ins, batched, strict=True))
    out = []
    for t, b in zip(ins, batched, strict=True):
        shape = tuple(t._v.shape)
        pad = rank - (len(shape) - 1)
        out.append(reshape(t, (shape[0], *(1,) * pad, *shape[1:])) if b and pad else t)
    return out


def batch_elementwise(prim: Primitive) -> Any:
    """The batching rule of a primitive that broadcasts its inputs against each other."""

    def rule(n: int, ins: list, batched: list, **params: Any) -> Any:
        return prim(*(ins if len(ins) == 1 else aligned(ins, batched)), **params)

    return rule


def all_batched(n: int, ins: list[Tensor], batched: list[bool]) -> list[Tensor]:
    """Give every input the batch axis, by expanding those that have none."""
    from funcnn.ops.movement import expand

    return [t if b else expand(t, (n, *t.shape)) for t, b in zip(ins, batched, strict=True)]


def fold(t: Tensor) -> Tensor:
    """Merge the batch axis 0 into axis 1: (B, N, ...) -> (B*N, ...), for rules of operations that are batched already."""
    from funcnn.ops.movement import reshape

    b, n, *rest = t._v.shape
    return reshape(t, (b * n, *rest))


def unfold_batch(t: Tensor, n: int) -> Tensor:
    """The inverse of ``fold`` for a batch of ``n``."""
    from funcnn.ops.movement import reshape

    whole, *rest = t._v.shape
    return reshape(t, (n, whole // n if n else 0, *rest))


def normalize_dim(name: str, dim: int | np.integer, ndim: int) -> int:
    """A possibly negative dimension as 0..ndim-1 (a 0-d tensor counts as one dimension). Raises ``IndexError``."""
    if type(dim) is not int and (isinstance(dim, bool) or not isinstance(dim, (int, np.integer))):
        raise DTypeError(f"{name}: dim must be an int, got {type(dim).__name__}")
    bound = ndim or 1
    if not -bound <= dim < bound:
        raise IndexError(
            f"{name}: dimension {dim} is out of range for {ndim} dimensions; expected {-bound}..{bound - 1}"
        )
    return int(dim) % bound


def normalize_dims(name: str, dims: Any, ndim: int) -> tuple[int, ...]:
    """None (all), an int or several, as sorted distinct dimensions. Raises ``ShapeError`` for a repeated one."""
    if dims is None:
        return tuple(range(ndim))
    if isinstance(dims, (int, np.integer)):
        dim = normalize_dim(name, dims, ndim)
        return (dim,) if ndim else ()
    listed = tuple(dims)
    out = sorted([normalize_dim(name, dim, ndim) for dim in listed])
    if len(set(out)) != len(out):
        raise ShapeError(f"{name}: a dimension appears twice in {listed}")
    return tuple(out) if ndim else ()


def size_args(sizes: tuple) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` as one tuple of ints."""
    listed = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return tuple(int(size) for size in listed)


def numel(shape: tuple[int, ...]) -> int:
    """The number of elements."""
    return math.prod(shape)


def _cast(ins: list, outs: list, dtype: np.dtype) -> None:
    np.copyto(outs[0], ins[0], casting="unsafe")


def _cast_shape(x: Any, dtype: np.dtype) -> tuple:
    return (Aval(x.shape, dtype),)


cast_p = Primitive(
    "to",
    shape=_cast_shape,
    cpu=_cast,
    vjp=lambda g, ins, y, dtype: (cast(g, ins[0].dtype),),
    batch=lambda n, ins, batched, dtype: cast_p(ins[0], dtype=dtype),
    keeps="",
)


def cast(x: Tensor, dtype: np.dtype) -> Tensor:
    """A copy in another dtype; the tensor itself where it has that dtype already."""
    if x._v.dtype == dtype:
        return x if ctx.stage is None else ctx.stage.exact(x)
    return cast_p(x, dtype=dtype)
