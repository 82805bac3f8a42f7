"""One more elementwise operation is one declaration: value, derivative, method, in-place form, flops, jit, vmap and profile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.elementwise import comparison, functions, loops
from funcnn.ops.base import registry
from funcnn.ops.base.declare import unary
from funcnn.ops.elementwise.arithmetic import add, mul
from tests import helpers as h


@exact_function
def bump_scalar(x):
    """x + x^2."""
    return x + x * x


bump_kernel = loops.loop1("bump", bump_scalar)


@pytest.fixture
def bump() -> Iterator[Any]:
    yield unary(
        "bump",
        bump_kernel,
        lambda g, x, o: mul(g, add(mul(x, 2.0), 1.0)),
        "``x + x**2``.",
        numpy=False,
        ns=0.1,
        flops=2,
    )
    for name in ("bump", "bump_"):
        delattr(Tensor, name)
    del registry.OPERATIONS["bump"]


def test_one_declaration_is_all(bump: Any) -> None:
    array = np.random.default_rng(0).standard_normal((3, 4))
    x = fn.tensor(array)
    expected = array + array**2
    np.testing.assert_allclose(bump(x).numpy(), expected)
    np.testing.assert_allclose(x.bump().numpy(), expected)
    np.testing.assert_allclose(fn.jit(bump)(x).numpy(), expected)
    np.testing.assert_allclose(fn.vmap(bump)(x).numpy(), expected)
    np.testing.assert_allclose(fn.grad(lambda t: bump(t).sum())(x).numpy(), 1 + 2 * array)
    np.testing.assert_allclose(
        fn.grad(lambda t: fn.grad(lambda s: bump(s).sum())(t).sum())(x).numpy(), np.full((3, 4), 2.0)
    )
    with fn.profiler.profile() as prof:
        bump(x)
    (event,) = [e for e in prof.events if e.kind == "operation" and e.name == "bump"]
    assert event.flops == 2 * 12
    assert bump.primitive.scalar is bump_scalar
    y = x.clone()
    assert y.bump_() is y
    np.testing.assert_allclose(y.numpy(), expected)


# ---- the kernels of what NumPy has loops for ----------------------------------------------------------------------------
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


def test_every_kernel_knows_its_scalar_function() -> None:
    made = [value for module in (functions, comparison) for value in vars(module).values() if hasattr(value, "scalar")]
    kernels = [kernel for kernel in made if kernel.scalar is not None]
    assert len(kernels) > 40
