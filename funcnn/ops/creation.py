"""New tensors: from data, filled, ranges; PyTorch's names. Under ``jit`` they are constants of the program."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.context import ctx
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor, constant, share
from funcnn.ops.common import cast, from_sequence, size_args, to_tensor


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """``data`` as a tensor: itself if it is one, sharing memory with an array, else a copy."""
    return to_tensor(data, None if dtype is None else dtypes.as_dtype(dtype))


def from_sequence_or_array(data: Any, dtype: np.dtype | None = None) -> Tensor:
    """A fresh copy of any data as a tensor."""
    if isinstance(data, Tensor):
        from funcnn.ops.elementwise import clone, detach

        copy = clone(detach(data))
        return copy if dtype is None else cast(copy, dtype)
    if isinstance(data, (range, set, frozenset)) or (hasattr(data, "__iter__") and not hasattr(data, "__array__")):
        return from_sequence(list(data), dtype)
    if hasattr(data, "__array__"):
        array = np.array(data)
        return constant(array.astype(dtypes.as_dtype(array.dtype) if dtype is None else dtype))
    return constant(np.array(data, dtypes.scalar_dtype(data) if dtype is None else dtype))


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A copy of ``data`` (numbers, nested sequences, arrays) as a tensor. Python floats get the default float."""
    check_device(device)
    out = from_sequence_or_array(data, None if dtype is None else dtypes.as_dtype(dtype))
    return out.requires_grad_() if requires_grad else out


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of ``array``; writes are seen by both."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}; use tensor(...)")
    out = constant(array if dtypes.as_dtype(array.dtype).isnative else array.astype(array.dtype.newbyteorder("=")))
    if ctx.stage is None:
        share(out)
    return out


def from_dlpack(external: Any) -> Tensor:
    """A tensor on the memory of any CPU object with ``__dlpack__``, without a copy."""
    return from_numpy(np.from_dlpack(external))


def check_device(device: Any) -> None:
    """Raise ``RuntimeError`` for a device that this build does not have."""
    if device is not None and str(getattr(device, "type", device)).split(":")[0] != "cpu":
        raise RuntimeError(f"device {str(device)!r} is not available; tensors live on 'cpu'")


def _sizes(name: str, sizes: tuple) -> tuple[int, ...]:
    shape = size_args(sizes)
    if any(s < 0 for s in shape):
        raise ShapeError(f"{name}: sizes must not be negative, got {shape}")
    return shape


def _made(array: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    check_device(device)
    out = constant(array)
    return out.requires_grad_() if requires_grad else out


def _float(dtype: Any) -> np.dtype:
    return dtypes.default_float() if dtype is None else dtypes.as_dtype(dtype)


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of shape ``size`` (ints or one tuple)."""
    return _made(np.zeros(_sizes("zeros", size), _float(dtype)), device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of shape ``size`` (ints or one tuple)."""
    return _made(np.ones(_sizes("ones", size), _float(dtype)), device, requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uninitialised memory of shape ``size`` (ints or one tuple)."""
    return _made(np.empty(_sizes("empty", size), _float(dtype)), device, requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``fill_value`` everywhere; the dtype is that of the value unless given."""
    shape = _sizes("full", (size,))
    if isinstance(fill_value, Tensor):
        from funcnn.ops.movement import expand

        return cast(expand(fill_value, shape), fill_value.dtype if dtype is None else dtypes.as_dtype(dtype))
    dtype = dtypes.scalar_dtype(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    return _made(np.full(shape, fill_value, dtype), device, requires_grad)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape (and dtype) of ``input``."""
    return zeros(tuple(input._v.shape), dtype=_same(input, dtype), device=device, requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape (and dtype) of ``input``."""
    return ones(tuple(input._v.shape), dtype=_same(input, dtype), device=device, requires_grad=requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uninitialised memory of the shape (and dtype) of ``input``."""
    return empty(tuple(input._v.shape), dtype=_same(input, dtype), device=device, requires_grad=requires_grad)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``fill_value`` in the shape (and dtype) of ``input``."""
    shape = tuple(input._v.shape)
    return full(shape, fill_value, dtype=_same(input, dtype), device=device, requires_grad=requires_grad)


def _same(input: Tensor, dtype: Any) -> np.dtype:
    return input._v.dtype if dtype is None else dtypes.as_dtype(dtype)


def arange(*bounds: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``arange(end)``, ``arange(start, end)`` or ``arange(start, end, step)``: start, start + step, ... below end."""
    if not 1 <= len(bounds) <= 3:
        raise TypeError(f"arange: expected 1 to 3 bounds, got {len(bounds)}")
    start, end, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    if step == 0 or (end - start) * step < 0:
        raise ValueError(f"arange: a step of {step} does not lead from {start} to {end}")
    whole = all(isinstance(b, (int, np.integer)) for b in (start, end, step))
    dtype = (dtypes.int64 if whole else dtypes.default_float()) if dtype is None else dtypes.as_dtype(dtype)
    count = math.ceil((end - start) / step)
    return _made(
        (start + step * np.arange(count, dtype=np.int64 if whole else np.float64)).astype(dtype), device, requires_grad
    )


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included."""
    if steps < 0:
        raise ValueError(f"linspace: steps must not be negative, got {steps}")
    return _made(np.linspace(start, end, steps).astype(_float(dtype)), device, requires_grad)


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``base`` to the powers of ``linspace(start, end, steps)``."""
    if steps < 0:
        raise ValueError(f"logspace: steps must not be negative, got {steps}")
    return _made(np.logspace(start, end, steps, base=base).astype(_float(dtype)), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix of zeros."""
    if n < 0 or (m is not None and m < 0):
        raise ShapeError(f"eye: sizes must not be negative, got {(n, m)}")
    return _made(np.eye(n, m, dtype=_float(dtype)), device, requires_grad)


def require_floating(name: str, t: Tensor) -> Tensor:
    """``t``, which must be floating-point. Raises ``DTypeError``."""
    if t._v.dtype.kind != "f":
        raise DTypeError(f"{name}: expected a floating-point tensor, got {t.dtype}; convert with .float()")
    return t
