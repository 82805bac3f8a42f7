"""What families of operations share: promotion, broadcasting and its transpose, alignment of batched inputs."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from funcnn.core import dtypes
from funcnn.core.context import ctx
from funcnn.core.device import HOST, device_of
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.primitive import quietly
from funcnn.core.tensor import Tensor, constant
from funcnn.kernels.cpu import memory
from funcnn.ops.base.structure import cast, filled

NUMBERS = (int, float, np.generic)
Typed = TypeVar("Typed", bound=Any)  # a tensor or an aval


def operand(name: str, value: Any) -> Tensor:
    """Converts ``value`` to a tensor for the operation ``name``. Raises ``DTypeError`` naming it."""
    if isinstance(value, Tensor):
        return value
    try:
        return to_tensor(value)
    except DTypeError as error:
        raise DTypeError(f"{name}: {error}") from None


def to_tensor(value: Any, dtype: np.dtype | None = None) -> Tensor:
    """Converts a tensor, an array (sharing memory), a number or a nested list to a tensor, and casts it to a given dtype."""
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
    """Makes a tensor of a nested sequence of numbers, arrays or tensors; Python floats become the default float.

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


def promoted(
    name: str, *args: Any, to_float: bool = False, exact: bool = False, beside: Tensor | None = None
) -> list[Tensor]:
    """Converts the operands to tensors of their common dtype (see ``core.dtypes``). Raises ``DTypeError`` where there is none.

    to_float: in the default float where that is no float. exact: a Python number beyond the dtype raises, else it wraps.
    beside: another operand, where numbers are made if all of these are numbers.
    """
    try:
        dtype = dtypes.result_type([_ranked(arg) for arg in args])
    except DTypeError as error:
        raise DTypeError(f"{name}: {error}") from None
    if to_float and dtype.kind != "f":
        dtype = dtypes.default_float()
    device = _place(*args, beside)
    return [stored(name, arg, dtype, device) if exact else _beside(arg, dtype, device) for arg in args]


def _place(*args: Any) -> str:
    for arg in args:
        if isinstance(arg, Tensor):
            return HOST if type(arg._v) is np.ndarray else device_of(arg._v)
    return HOST


def _beside(value: Any, dtype: np.dtype, device: str) -> Tensor:
    """Converts ``value`` to a tensor of ``dtype``; a number is placed on the device of the other operands."""
    if device == HOST or not isinstance(value, NUMBERS):
        return to_tensor(value, dtype)
    return filled((), quietly(dtypes.wrapped, value, dtype).item(), dtype, device)


def stored(name: str, value: Any, dtype: np.dtype, device: str = HOST) -> Tensor:
    """Converts ``value`` to a tensor of ``dtype`` on a device; a number is converted directly, not through another dtype.

    Raises ``OverflowError`` for a number that the dtype does not hold.
    """
    if isinstance(value, NUMBERS):
        number = dtypes.number(name, value, dtype)
        return constant(number) if device == HOST else filled((), number.item(), dtype, device)
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
    """Converts ``x`` to a tensor of a floating dtype; integers become the default float."""
    t = x if isinstance(x, Tensor) else to_tensor(x)
    return t if t._v.dtype.kind == "f" else cast(t, dtypes.default_float())


def require_same_dtype(name: str, *tensors: Any) -> None:
    """Raises ``DTypeError`` unless all have one dtype (operations that do not promote: products, convolutions)."""
    dtype = tensors[0].dtype
    for t in tensors:
        if t.dtype is not dtype and t.dtype != dtype:
            listed = ", ".join([str(given.dtype) for given in tensors])
            raise DTypeError(f"{name}: expected operands of one dtype, got {listed}; convert with .to(dtype)")


def require_floating(name: str, t: Typed, expected: str = "a floating-point tensor") -> Typed:
    """Returns a tensor or an aval. Raises ``DTypeError`` unless it is floating-point."""
    if t.dtype.kind != "f":
        raise DTypeError(f"{name}: expected {expected}, got {t.dtype}; convert with .float()")
    return t


def require_kernel_float(name: str, t: Any, expected: str = "float32 or float64") -> None:
    """Raises ``DTypeError`` unless a tensor or an aval is float32 or float64, which kernels compute in."""
    if t.dtype.kind != "f" or t.dtype.itemsize < 4:
        raise DTypeError(f"{name}: expected {expected}, got {t.dtype}; convert with .float()")
