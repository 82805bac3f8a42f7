"""Dtypes are NumPy's; this file holds their names, the default float and PyTorch's promotion rules.

Promotion has three kinds (bool < integer < float). Operands are ranked: tensors with dimensions first, then 0-d
tensors, then Python scalars; a lower rank changes the result only when its kind is higher.
"""

from __future__ import annotations

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
    """The dtype that Python floats and creation functions get (float32 unless set)."""
    return _default[0]


def set_default_dtype(dtype) -> None:
    """Set the dtype of new floating-point tensors. Raises ``DTypeError`` for a non-floating one."""
    dtype = as_dtype(dtype)
    if dtype.kind != "f":
        raise DTypeError(f"set_default_dtype: expected a floating-point dtype, got {dtype}")
    _default[0] = dtype


def as_dtype(spec) -> np.dtype:
    """``spec`` (a NumPy dtype, its name, or bool/int/float) as one of the supported dtypes."""
    try:
        dtype = _BY_KIND.get(spec) or np.dtype(spec)
    except TypeError:
        raise DTypeError(f"expected a dtype such as funcnn.float32, got {spec!r}") from None
    if dtype not in SUPPORTED:
        raise DTypeError(f"dtype {dtype} is not supported; use one of {', '.join(map(str, SUPPORTED))}")
    return dtype


def kind(dtype: np.dtype) -> int:
    """0 for bool, 1 for integers, 2 for floats."""
    return 0 if dtype.kind == "b" else 2 if dtype.kind == "f" else 1


@lru_cache(maxsize=1024)
def promote_types(a: np.dtype, b: np.dtype) -> np.dtype:
    """The dtype both promote to, as in ``torch.promote_types``: integer with float gives that float."""
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
    """The dtype a Python scalar stands for."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, numbers.Integral):
        return int64
    if isinstance(value, numbers.Real):
        return default_float()
    raise DTypeError(f"expected a number or a tensor, got {type(value).__name__}: {value!r}")


def combine(higher: np.dtype | None, lower: np.dtype | None) -> np.dtype | None:
    """Let ``lower`` change ``higher`` only where its kind is above."""
    if higher is None or lower is None:
        return lower if higher is None else higher
    return higher if kind(lower) <= kind(higher) else promote_types(higher, lower)


def result_type(ranked) -> np.dtype:
    """The common dtype of ``(dtype, rank)`` pairs; rank 2: has dimensions, 1: 0-d tensor, 0: scalar."""
    best: list[np.dtype | None] = [None, None, None]
    for dtype, rank in ranked:
        held = best[rank]
        best[rank] = dtype if held is None else promote_types(held, dtype)
    found = combine(combine(best[2], best[1]), best[0])
    assert found is not None
    return found
