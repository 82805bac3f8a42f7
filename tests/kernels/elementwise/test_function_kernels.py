"""Kernels of what NumPy has loops for, beside those loops: special numbers, every kind of integer."""

from __future__ import annotations

import numpy as np
import pytest

import funcnn as fn
from funcnn.ops.elementwise.arithmetic import _trunc_divide, number_over_p
from funcnn.ops.elementwise.math import lerp_p
from funcnn.ops.reduce.sums import _without_nan
from tests import helpers as h

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-3, 700.0])
WHOLE = np.array([0, 1, -1, 5, -7, 63, 64, 31, 100, -3])
ONE = ["ceil", "floor", "trunc", "round", "exp2", "log2", "log10", "reciprocal", "tan", "asin", "acos", "atan", "sinh", "cosh",
       "asinh", "acosh", "atanh", "isnan", "isinf", "isfinite", "logical_not"]  # fmt: skip
TWO = ["floor_divide", "remainder", "fmod", "fmax", "fmin", "pow", "hypot", "atan2", "eq", "ne", "lt", "le", "gt", "ge",
       "logical_and", "logical_or", "logical_xor"]  # fmt: skip
BITS = ["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"]


def agree(name: str, arrays: list[np.ndarray]) -> None:
    """Assert that the kernel and NumPy make the same of the arrays, infinities, NaN and signs of zero included."""
    ways = h.by_each_way(getattr(fn, name).primitive, arrays)
    (kernel,), (numpy,) = ways["kernel"], ways["numpy"]
    assert kernel.dtype == numpy.dtype
    np.testing.assert_allclose(kernel, numpy, 1e-6 if arrays[0].dtype == np.float32 else 1e-14, err_msg=name)
    if kernel.dtype.kind == "f" and name not in ("fmax", "fmin"):  # which zero is the larger is left open
        zero = numpy == 0
        np.testing.assert_array_equal(np.signbit(kernel[zero]), np.signbit(numpy[zero]), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_agree_with_numpy_on_special_numbers(dtype: str) -> None:
    x = SPECIAL.astype(dtype)
    for name in ONE:
        agree(name, [x])
    first, second = (np.ascontiguousarray(a) for a in np.broadcast_arrays(x[:, None], x[None]))
    for name in TWO:
        agree(name, [first, second])
        agree(name, [first, np.array(-2.5, dtype)])


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool"])
def test_kernels_of_bits_agree_with_numpy(dtype: str) -> None:
    x = WHOLE.astype(dtype)
    first, second = (np.ascontiguousarray(a) for a in np.broadcast_arrays(x[:, None], x[None]))
    for name in [*BITS[: 3 if dtype == "bool" else 5], "logical_and", "logical_or", "logical_xor"]:
        agree(name, [first, second])
    agree("logical_not", [x])
    if dtype != "bool":
        agree("bitwise_not", [x])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_of_other_primitives_agree_with_numpy(dtype: str) -> None:
    x = SPECIAL.astype(dtype)
    first, second = (np.ascontiguousarray(a) for a in np.broadcast_arrays(x[:, None], x[None]))
    third = np.ascontiguousarray(second[::-1])
    for prim, arrays, params in (
        (number_over_p, [x], {"number": 2.0}),
        (_without_nan.primitive, [x], {}),
        (_trunc_divide.primitive, [first, second], {}),
        (lerp_p, [first, second, third], {}),
        (lerp_p, [first, second, np.array(0.25, dtype)], {}),
    ):
        ways = h.by_each_way(prim, arrays, **params)
        (kernel,), (numpy,) = ways["kernel"], ways["numpy"]
        np.testing.assert_allclose(kernel, numpy, 1e-6 if dtype == "float32" else 1e-14, err_msg=prim.name)
