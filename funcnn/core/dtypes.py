"""Dtypes are NumPy's; this file holds their names, the default float and PyTorch's promotion rules.

Promotion has three kinds (bool < integer < float). Operands are ranked: tensors with dimensions first, then 0-d
tensors, then Python scalars; a lower rank changes the result only when its kind is higher.
"""

from __future__ import annotations

import math
import numbers
from functools import lru_cache

import numpy as np

from funcnn.core.errors import DTypeError

bool_ = np.dtype(np.bool_)
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64))
int8, int16, int32, int64 = (np.dtype(f"int{bits}") for bits in (8, 16, 32, 64))
float16, float32, float64 = (np.dtype(f"float{bits}") for bits in (16, 32, 64))
SUPPORTED = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, float32, float64)
_BY_KIND = {bool: bool_, int: int64, float: float64}
_default = [float32]


def default_float() -> np.dtype:
    """Returns the dtype that Python floats and creation functions get (float32 unless set)."""
    return _default[0]


def set_default_dtype(dtype) -> None:
    """Sets the dtype of new floating-point tensors. Raises ``DTypeError`` for a non-floating one."""
    dtype = as_dtype(dtype)
    if dtype.kind != "f":
        raise DTypeError(f"set_default_dtype: expected a floating-point dtype, got {dtype}")
    _default[0] = dtype


def as_dtype(spec) -> np.dtype:
    """Converts ``spec`` (a NumPy dtype, its name, or bool/int/float) to one of the supported dtypes."""
    try:
        dtype = _BY_KIND.get(spec) or np.dtype(spec)
    except TypeError:
        raise DTypeError(f"expected a dtype such as funcnn.float32, got {spec!r}") from None
    if dtype not in SUPPORTED:
        raise DTypeError(f"dtype {dtype} is not supported; use one of {', '.join(map(str, SUPPORTED))}")
    return dtype


def kind(dtype: np.dtype) -> int:
    """Returns 0 for bool, 1 for integers and 2 for floats."""
    return 0 if dtype.kind == "b" else 2 if dtype.kind == "f" else 1


@lru_cache(maxsize=1024)
def promote_types(a: np.dtype, b: np.dtype) -> np.dtype:
    """Returns the dtype that both promote to, as in ``torch.promote_types``: integer with float gives that float."""
    if a == b:
        return a
    low, high = sorted((a, b), key=kind)
    if kind(low) < kind(high):
        return high
    if kind(a) == 2:
        return np.promote_types(a, b)
    wide = {uint16, uint32, uint64}
    if a in wide or b in wide:
        raise DTypeError(f"{a} and {b} do not promote to a common dtype; convert one with .to(dtype)")
    return np.promote_types(a, b)


def scalar_dtype(value) -> np.dtype:
    """Returns the dtype that a Python scalar stands for."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, numbers.Integral):
        return int64
    if isinstance(value, numbers.Real):
        return default_float()
    raise DTypeError(f"expected a number or a tensor, got {type(value).__name__}: {value!r}")


def wrapped(value, dtype: np.dtype) -> np.ndarray:
    """Converts an operand, a Python number, to a 0-d array of ``dtype``; an integer beyond its range wraps around.

    Raises ``OverflowError`` for an integer of more than 64 bits.
    """
    try:
        return np.asarray(value, dtype)
    except OverflowError:
        if dtype.kind not in "iu" or not -(2**63) <= value < 2**64:
            raise OverflowError(f"{value} does not fit 64 bits; convert it to a float first") from None
    return np.asarray(int(value) % 2**64, np.uint64).astype(dtype)


def number(name: str, value, dtype: np.dtype) -> np.ndarray:
    """Converts a Python number, to be stored, to a 0-d array of ``dtype``: integers drop the fraction, unsigned ones wrap -1.

    Raises ``OverflowError`` for a number beyond the dtype, in the name of the operation.
    """
    if dtype.kind == "b":
        return np.asarray(bool(value))
    if dtype.kind == "f" and -6e4 < value < 6e4:  # the common case, in every float
        return np.asarray(value, dtype)
    value = value.item() if isinstance(value, np.generic) else value
    if dtype.kind == "f":
        fits = not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    else:
        info = np.iinfo(dtype)
        negates = dtype.kind == "u" and isinstance(value, int)
        fits = (-info.max if negates else info.min) <= value <= info.max
    if not fits:
        raise OverflowError(f"{name}: {value} does not fit {dtype}; convert the tensor to a wider dtype first")
    return np.asarray(value, dtype) if dtype.kind == "f" else wrapped(int(value), dtype)


def combine(higher: np.dtype | None, lower: np.dtype | None) -> np.dtype | None:
    """Promotes ``higher`` by ``lower`` only if the kind of ``lower`` is above."""
    if higher is None or lower is None:
        return lower if higher is None else higher
    return higher if kind(lower) <= kind(higher) else promote_types(higher, lower)


def result_type(ranked) -> np.dtype:
    """Returns the common dtype of ``(dtype, rank)`` pairs; rank 2: has dimensions, 1: 0-d tensor, 0: scalar."""
    best: list[np.dtype | None] = [None, None, None]
    for dtype, rank in ranked:
        held = best[rank]
        best[rank] = dtype if held is None else promote_types(held, dtype)
    found = combine(combine(best[2], best[1]), best[0])
    assert found is not None
    return found
