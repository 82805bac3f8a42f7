"""New tensors: from data, filled, ranges; PyTorch's names.

Inside a transformation ``full``, ``iota`` and ``eye`` are primitives without inputs: no rule of differentiation or batching
is asked, and a program holds no array. What is made of data is a constant of the program.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval, is_concrete
from funcnn.core.context import ctx
from funcnn.core.device import HOST, device_of, devices, known_device
from funcnn.core.errors import DeviceError, DTypeError, ShapeError
from funcnn.core.primitive import Primitive, quietly
from funcnn.core.tensor import Tensor, constant, share, wrap
from funcnn.kernels.cpu import memory
from funcnn.kernels.cpu.creation.launch import EYE, IOTA, counted
from funcnn.ops.base import costs
from funcnn.ops.base.promote import from_sequence, to_tensor
from funcnn.ops.base.structure import cast, full_p, inside, on
from funcnn.ops.elementwise.comparison import ge
from funcnn.ops.movement.views import clone, detach, expand, reshape

# ---- primitives -------------------------------------------------------------------------------------------------------

iota_p = Primitive(
    "iota",
    lambda size, start, step, dtype, device=HOST: (Aval((size,), dtype),),
    cpu=IOTA,
    flops=costs.none,
)


eye_p = Primitive("eye", lambda n, m, dtype, device=HOST: (Aval((n, m), dtype),), cpu=EYE, flops=costs.none)


def _applied(prim: Primitive, device: Any, requires_grad: bool, **params: Any) -> Tensor:
    out = prim(**params, **on(known_device(device)))
    return out.requires_grad_() if requires_grad else out


def _elsewhere(device: Any) -> bool:
    return known_device(device) != HOST


def _new(array: np.ndarray, requires_grad: bool) -> Tensor:
    """A box outside every transformation."""
    box = wrap(array)
    return box.requires_grad_() if requires_grad else box


# ---- from data --------------------------------------------------------------------------------------------------------
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor: itself if it is one, sharing memory with an array, else a copy."""
    dtype = None if dtype is None else dtypes.as_dtype(dtype)
    given = isinstance(data, (Tensor, np.ndarray))
    return _brought(to_tensor(data, dtype) if given else from_sequence_or_array(data, dtype), device)


def from_sequence_or_array(data: Any, dtype: np.dtype | None = None) -> Tensor:
    """A fresh copy of any data as a tensor."""
    if isinstance(data, Tensor):
        copy = clone(detach(data))
        return copy if dtype is None else cast(copy, dtype)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return from_sequence(list(data), dtype)
    if hasattr(data, "__array__"):
        array = np.asarray(data)
        return constant(memory.copied(array, dtypes.as_dtype(array.dtype) if dtype is None else dtype))
    found = dtypes.scalar_dtype(data)
    found = found if dtype is None else dtype
    array = quietly(np.array(data).astype, found) if found.kind == "f" else dtypes.number("tensor", data, found)
    return constant(array)


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A copy of ``data`` (numbers, nested sequences, arrays) as a tensor. Python floats get the default float."""
    out = _brought(from_sequence_or_array(data, None if dtype is None else dtypes.as_dtype(dtype)), device)
    return out.requires_grad_() if requires_grad else out


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of ``array``; writes are seen by both. Raises ``DTypeError`` for a dtype that is not ours."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}; use tensor(...)")
    dtypes.as_dtype(array.dtype)
    out = constant(array)
    if ctx.stage is None:
        share(out).exposed = True
    return out


def from_dlpack(external: Any) -> Tensor:
    """A tensor on the memory of any CPU object with ``__dlpack__``, without a copy."""
    return from_numpy(np.from_dlpack(external))


def _brought(t: Tensor, device: Any) -> Tensor:
    """A tensor of the user's data on a device that he names."""
    name = known_device(device)
    return t if device is None or name == device_of(t._v) else carried(t, name)


def carried(t: Tensor, name: str) -> Tensor:
    """The numbers of ``t`` on another device, through the host; under ``jit`` those of user's data, once, while tracing."""
    known = None if ctx.stage is None else ctx.stage.known(t)
    if known is not None:
        out = wrap(devices[name].copy_in(known))
        out._born = 0 if ctx.top is None else ctx.top.depth
        return out
    if not is_concrete(t._v) or ctx.stage is not None or (ctx.grad and t.requires_grad):
        raise DeviceError(f"to: a tensor that is traced or requires grad cannot go from {device_of(t._v)!r} to {name!r}; "
                          "move it before, or .detach() it")  # fmt: skip
    return wrap(devices[name].copy_in(devices[device_of(t._v)].copy_out(t._v)))


# ---- filled -----------------------------------------------------------------------------------------------------------
def _sizes(name: str, sizes: tuple) -> tuple[int, ...]:
    listed = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    try:
        shape = tuple(operator.index(size) for size in listed)
    except TypeError:
        raise DTypeError(f"{name}: sizes must be integers, got {tuple(listed)}") from None
    if any(size < 0 for size in shape):
        raise ShapeError(f"{name}: sizes must not be negative, got {shape}")
    return shape


def _made(array: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    out = _brought(constant(array), device)
    return out.requires_grad_() if requires_grad else out


def _float(dtype: Any) -> np.dtype:
    return dtypes.default_float() if dtype is None else dtypes.as_dtype(dtype)


def zeros(*sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of this shape, given as ints or as one tuple."""
    shape, dtype = _sizes("zeros", sizes if size is None else (size,)), _float(dtype)
    if inside() or (device is not None and _elsewhere(device)):
        return _applied(full_p, device, requires_grad, shape=shape, value=0, dtype=dtype)
    return _new(memory.filled(shape, dtype, 0), requires_grad)


def ones(*sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of this shape, given as ints or as one tuple."""
    shape, dtype = _sizes("ones", sizes if size is None else (size,)), _float(dtype)
    if inside() or (device is not None and _elsewhere(device)):
        return _applied(full_p, device, requires_grad, shape=shape, value=1, dtype=dtype)
    return _new(memory.filled(shape, dtype, 1), requires_grad)


def empty(*sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uninitialised memory of this shape, given as ints or as one tuple."""
    shape, dtype = _sizes("empty", sizes if size is None else (size,)), _float(dtype)
    if inside() or (device is not None and _elsewhere(device)):
        return _applied(full_p, device, requires_grad, shape=shape, value=0, dtype=dtype)
    return _new(memory.empty(shape, dtype), requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``fill_value`` everywhere; the dtype is that of the value unless given."""
    shape = _sizes("full", (size,))
    if isinstance(fill_value, Tensor):
        return _filled(shape, fill_value, dtype, device, requires_grad)
    dtype = dtypes.scalar_dtype(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    number = dtypes.number("full", fill_value, dtype)
    if inside() or (device is not None and _elsewhere(device)):
        return _applied(full_p, device, requires_grad, shape=shape, value=number.item(), dtype=dtype)
    return _new(memory.filled(shape, dtype, number), requires_grad)


def _filled(shape: tuple, value: Tensor, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    """``value``, which may be traced, in memory of its own."""
    if value._v.size != 1:
        raise ShapeError(f"full: fill_value must be a single number, got a tensor of shape {tuple(value.shape)}")
    value = _brought(value, device)
    number = reshape(value if dtype is None else cast(value, dtypes.as_dtype(dtype)), ())
    out = clone(expand(number, shape))
    return out.requires_grad_() if requires_grad else out


def zeros_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape (and dtype) of ``input``."""
    shape, dtype, device = _same(input, dtype, device)
    return zeros(shape, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape (and dtype) of ``input``."""
    shape, dtype, device = _same(input, dtype, device)
    return ones(shape, dtype=dtype, device=device, requires_grad=requires_grad)


def empty_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uninitialised memory of the shape (and dtype) of ``input``."""
    shape, dtype, device = _same(input, dtype, device)
    return empty(shape, dtype=dtype, device=device, requires_grad=requires_grad)


def full_like(
    input: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``fill_value`` in the shape (and dtype) of ``input``."""
    shape, dtype, device = _same(input, dtype, device)
    return full(shape, fill_value, dtype=dtype, device=device, requires_grad=requires_grad)


def _same(input: Any, dtype: Any, device: Any) -> tuple[tuple[int, ...], np.dtype, Any]:
    like = input if isinstance(input, Tensor) else to_tensor(input)
    dtype = like._v.dtype if dtype is None else dtypes.as_dtype(dtype)
    if device is None and type(like._v) is not np.ndarray:
        device = device_of(like._v)
    return like._v.shape, dtype, device


def _number(bound: Any) -> Any:
    """A bound of a range as a Python number; a traced tensor is refused by ``item``."""
    return bound.item() if isinstance(bound, (Tensor, np.ndarray, np.generic)) else bound  # type: ignore[union-attr]


def arange(
    start: Any = None, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``arange(end)``, ``arange(start, end)`` or ``arange(start, end, step)``: start, start + step, ... below end."""
    start, end = (0, start) if end is None else (0 if start is None else start, end)
    if end is None:
        raise TypeError("arange: expected 1 to 3 bounds, got none")
    start, end, step = _number(start), _number(end), _number(step)
    if not all(map(math.isfinite, (start, end, step))) or step == 0 or (end - start) * step < 0:
        raise ShapeError(f"arange: a step of {step} does not lead from {start} to {end}")
    whole = all(isinstance(bound, int) for bound in (start, end, step))
    dtype = (dtypes.int64 if whole else dtypes.default_float()) if dtype is None else dtypes.as_dtype(dtype)
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    start, step = (start, step) if whole else (float(start), float(step))
    if inside() or (device is not None and _elsewhere(device)):
        return _applied(iota_p, device, requires_grad, size=count, start=start, step=step, dtype=dtype)
    return _new(memory.copied(counted(count, start, step), dtype), requires_grad)


def _steps(name: str, steps: Any) -> int:
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ShapeError(f"{name}: steps must be a non-negative integer, got {steps!r}")
    return int(steps)


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included."""
    numbers = np.linspace(_number(start), _number(end), _steps("linspace", steps))
    return _made(numbers.astype(_float(dtype)), device, requires_grad)


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``base`` to the powers of ``linspace(start, end, steps)``."""
    numbers = np.logspace(_number(start), _number(end), _steps("logspace", steps), base=base)
    return _made(numbers.astype(_float(dtype)), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix of zeros."""
    if n < 0 or (m is not None and m < 0):
        raise ShapeError(f"eye: sizes must not be negative, got {(n, m)}")
    dtype = _float(dtype)
    if inside() or (device is not None and _elsewhere(device)):
        return _applied(eye_p, device, requires_grad, n=n, m=n if m is None else m, dtype=dtype)
    array = memory.filled((n, n if m is None else m), dtype, 0)
    np.fill_diagonal(array[:n], 1)
    return _new(array, requires_grad)


def tri(rows: int, cols: int, diagonal: int = 0, device: Any = None) -> Tensor:
    """The mask of the lower triangle of a matrix, up to the ``diagonal``-th."""
    if not inside() and (device is None or not _elsewhere(device)):
        return wrap(np.tri(rows, cols, diagonal, bool))
    return ge(reshape(arange(diagonal, diagonal + rows, device=device), (rows, 1)), arange(cols, device=device))
