"""Elementwise operations where the table of cases does not go: promotion, special values, kinks, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn
from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.evaluation import planned
from funcnn.core.tensor import Tensor
from funcnn.ops.elementwise import closeness
from funcnn.ops.elementwise import math as m
from funcnn.ops.elementwise.activation import leaky_relu
from funcnn.ops.tensor.creation import as_tensor
from funcnn.transforms.grad import vjp
from tests import helpers as h

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
UNARY = (
    "neg", "abs", "sign", "positive", "square", "reciprocal", "ceil", "floor", "trunc", "round", "frac", "exp",
    "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "sigmoid", "relu",
)  # fmt: skip
PREDICATES = ("isnan", "isinf", "isfinite", "logical_not")
BINARY = (
    "add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "maximum", "minimum", "fmax", "fmin", "pow",
    "logaddexp", "hypot", "atan2", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor",
)  # fmt: skip
# Which zero these give of two is not specified by IEEE 754 (or, for remainder, differs among libraries).
ANY_ZERO = ("fmax", "fmin", "remainder", "relu")
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -2.5, 1.5, 30.0, -30.0, 1e-30, -1e-30, 1e30]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with np.errstate(all="ignore"):
        yield


def ours(name: str) -> Callable:
    """The function of this name, from whichever of the two files has it."""
    return getattr(fn, name, None) or getattr(m, name)


def numbers(t: Tensor) -> np.ndarray:
    """The array in a tensor."""
    return t._v


def same(got: np.ndarray, expected: np.ndarray, what: str, rtol: float) -> None:
    """Equal to rounding, NaN for NaN, and zeros of the same sign."""
    np.testing.assert_allclose(got, expected, rtol, 1e-37 if got.dtype == np.float32 else 0, err_msg=what)
    if got.dtype.kind == "f" and what.split()[0] not in ANY_ZERO:
        zeros = (got == 0) & (expected == 0)
        np.testing.assert_array_equal(
            np.signbit(got[zeros]), np.signbit(expected[zeros]), err_msg=f"{what}: sign of zero"
        )


# ---- promotion ------------------------------------------------------------------------------------------------------
def _operands() -> list[tuple[str, Any]]:
    """(name, NumPy array or Python number): each dtype with dimensions and without, and the Python numbers."""
    made: list[tuple[str, Any]] = [(f"{dtype}[2]", np.ones(2, dtype)) for dtype in DTYPES]
    made += [(f"{dtype}[]", np.ones((), dtype)) for dtype in DTYPES]
    return made + [("True", True), ("1", 1), ("1.0", 1.0)]


@pytest.mark.parametrize("name", ["add", "mul", "maximum", "div", "pow", "eq", "floor_divide", "atan2", "where"])
def test_promotion_matrix(name: str) -> None:
    torch = pytest.importorskip("torch")
    wrong = []
    for one_name, one in _operands():
        for two_name, two in _operands():
            if isinstance(one, (bool, int, float)) or (
                name in ("maximum", "atan2") and not isinstance(two, np.ndarray)
            ):
                continue  # torch's function wants tensors there
            if name == "pow" and one_name.startswith("bool") and two_name == "True":
                continue  # torch takes this one pair of bools and refuses all others
            got = _dtype(lambda *xy: str(_call(name, *xy).dtype), one, two)
            theirs = [torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x for x in (one, two)]
            expected = _dtype(lambda *xy: str(_theirs(torch, name, *xy).dtype).removeprefix("torch."), *theirs)
            if got != expected:
                wrong.append(f"{name}({one_name}, {two_name}): {got}, torch {expected}")
    assert not wrong, "\n".join(wrong)


def _call(name: str, x: Any, y: Any) -> Tensor:
    return fn.where(as_tensor(np.array(True)), x, y) if name == "where" else ours(name)(x, y)


def _theirs(torch: Any, name: str, x: Any, y: Any) -> Any:
    return torch.where(torch.tensor(True), x, y) if name == "where" else getattr(torch, name)(x, y)


def _dtype(f: Callable, *args: Any) -> str:
    try:
        return f(*args)
    except (RuntimeError, TypeError):
        return "refused"


@pytest.mark.parametrize("number", [2, 1.5, True, np.float64(1.5), np.int64(2)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scalars_are_weak_in_value_and_gradient(dtype: str, number: Any) -> None:
    x = as_tensor(np.array([0.5, 2.0], dtype))
    for name in ("add", "sub", "mul", "div", "pow", "maximum", "fmod", "remainder", "hypot", "atan2", "logaddexp"):
        f = ours(name)
        if name == "sub" and number is True:
            with pytest.raises(DTypeError, match="sub: not defined for bool"):
                f(x, number)
            continue
        for args in (lambda x: (x, number), lambda x: (number, x)):
            out, pullback = vjp(lambda x, f=f, args=args: f(*args(x)), x)
            assert out.dtype == dtype, name
            assert pullback(as_tensor(np.ones(2, dtype)))[0].dtype == dtype, name
    clamped, pullback = vjp(lambda x: fn.clamp(fn.where(fn.gt(x, 1), x, number), -3.0, 3), x)
    assert clamped.dtype == pullback(clamped)[0].dtype == dtype


def test_integers_become_the_default_float() -> None:
    x = as_tensor(np.array([1, 2]))
    assert (
        m.exp(x).dtype == fn.div(x, x).dtype == fn.add(x, 0.5).dtype == fn.mul(x, np.float64(0.5)).dtype == np.float32
    )


# ---- special values -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype,rtol", [("float32", 2e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("name", (*UNARY, *PREDICATES))
def test_special_values(name: str, dtype: str, rtol: float) -> None:
    torch = pytest.importorskip("torch")
    x = np.array(SPECIAL, dtype)
    if name in ("sin", "cos", "tan"):
        x = x[np.abs(x) != np.array(1e30, dtype)]  # reduction of the argument is NumPy's own there
    if name == "sign":
        x = x[~np.isnan(x)]  # NaN stays NaN, torch gives 0
    expected = getattr(torch, name)(torch.from_numpy(x)).numpy()
    same(numbers(ours(name)(as_tensor(x))), expected, name, rtol)


@pytest.mark.parametrize("dtype,rtol", [("float32", 2e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("name", BINARY)
def test_special_pairs(name: str, dtype: str, rtol: float) -> None:
    torch = pytest.importorskip("torch")
    points = [v for v in SPECIAL if not (name in ("remainder", "fmod", "floor_divide") and abs(v) in (1e30, 1e-30))]
    x, y = (a.reshape(-1) for a in np.meshgrid(np.array(points, dtype), np.array(points, dtype)))
    expected = getattr(torch, name)(torch.from_numpy(x.copy()), torch.from_numpy(y.copy())).numpy()
    got = numbers(ours(name)(as_tensor(x), as_tensor(y)))
    pairs = [f"{p!r},{q!r}: {r!r} {s!r}" for p, q, r, s in zip(x, y, got, expected, strict=True) if _differ(r, s)]
    same(got, expected, f"{name} {pairs}", rtol)


def _differ(got: Any, expected: Any) -> bool:
    return not (np.isclose(got, expected, 1e-5, 0, equal_nan=True) and np.signbit(got) == np.signbit(expected))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_in_selection(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.array(SPECIAL, dtype)
    t, theirs = as_tensor(x), torch.from_numpy(x)
    for low, high in ((-1.0, 1.0), (0.0, None), (None, -0.5), (1.0, -1.0)):
        same(numbers(fn.clamp(t, low, high)), torch.clamp(theirs, low, high).numpy(), f"clamp {low} {high}", 0)
    bounds = np.array([np.nan] * len(x), dtype)
    same(
        numbers(fn.clamp(t, as_tensor(bounds))),
        torch.clamp(theirs, torch.from_numpy(bounds)).numpy(),
        "clamp to NaN",
        0,
    )
    same(
        numbers(fn.where(as_tensor(np.isnan(x)), 0.0, t)), torch.where(theirs.isnan(), 0.0, theirs).numpy(), "where", 0
    )
    assert numbers(closeness.isclose(t, t)).tolist() == torch.isclose(theirs, theirs).tolist()
    assert (
        numbers(closeness.isclose(t, t, equal_nan=True)).tolist()
        == torch.isclose(theirs, theirs, equal_nan=True).tolist()
    )


# ---- gradients at kinks ---------------------------------------------------------------------------------------------
def _both_gradients(f: Callable, theirs: Callable, *arrays: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    out = theirs(*tensors)
    g = np.random.default_rng(3).uniform(0.5, 1.5, tuple(out.shape)).astype(arrays[0].dtype)
    expected = torch.autograd.grad(out, tensors, torch.from_numpy(g))
    got = vjp(f, *map(as_tensor, arrays))[1](as_tensor(g))
    return [(numbers(a), b.numpy()) for a, b in zip(got, expected, strict=True)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_gradients_at_kinks(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -1.5, np.nan], dtype)
    x = x[:-1] if name == "abs" else x  # the gradient at NaN stays NaN, torch gives 0
    for got, expected in _both_gradients(ours(name), getattr(torch, name), x):
        np.testing.assert_allclose(got, expected, 2e-6 if dtype == "float32" else 1e-12, 1e-12, err_msg=name)


@pytest.mark.parametrize("name", [name for name in BINARY[:15] if name != "floor_divide"])
def test_gradients_at_ties_and_zeros(name: str) -> None:
    torch = pytest.importorskip("torch")
    points = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0])
    x, y = (a.reshape(-1) for a in np.meshgrid(points, points[1:] if name == "fmod" else points))
    for side, (got, expected) in zip("xy", _both_gradients(ours(name), getattr(torch, name), x, y), strict=True):
        pairs = [f"{p},{q}: {r} {s}" for p, q, r, s in zip(x, y, got, expected, strict=True) if not _near(r, s)]
        np.testing.assert_allclose(got, expected, 1e-12, 1e-12, err_msg=f"{name} d/d{side} {pairs}")


def _near(got: Any, expected: Any) -> bool:
    return bool(np.isclose(got, expected, equal_nan=True))


def test_steps_have_no_slope_whatever_the_cotangent() -> None:
    x = as_tensor(np.array([0.0, 1.5, -2.0, np.nan]))
    for f in (m.floor, m.round, fn.sign, lambda x: fn.floor_divide(x, 0.7), lambda x: fn.floor_divide(2.0, x)):
        got = numbers(vjp(f, x)[1](as_tensor(np.array([1.0, np.inf, np.nan, 4.0])))[0])
        np.testing.assert_array_equal(got, 0.0)
    np.testing.assert_array_equal(numbers(fn.sign(x)), [0.0, 1.0, -1.0, 0.0])  # PyTorch's sign of NaN
    assert np.isnan(numbers(vjp(fn.abs, x)[1](x)[0])[3])


def test_gradients_of_powers_of_zero_by_a_number() -> None:
    x = np.array([0.0, 2.0, -2.0])
    for exponent in (0, 1, 2, 3, 0.0, 1.0, 2.0):
        for got, expected in _both_gradients(lambda x, n=exponent: m.pow(x, n), lambda x, n=exponent: x**n, x):
            np.testing.assert_allclose(got, expected)
    base, exponents = np.array([0.0, 0.0, 2.0]), np.array([2.0, 1.0, -1.0])
    for number in (0, 2.0):
        ((got, expected),) = _both_gradients(
            lambda y, n=number: m.pow(n, y), lambda y, n=number: n**y, exponents + 0 * base
        )
        np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("f", [m.relu, leaky_relu, lambda x: fn.clamp(x, -1.0)])
def test_straight_lines_have_no_second_derivative_even_at_infinity(f: Callable) -> None:
    x = as_tensor(np.array([-np.inf, -2.0, 3.0, np.inf, np.nan]))
    _, pullback = vjp(lambda x: vjp(f, x)[1](as_tensor(np.ones(5)))[0], x)
    np.testing.assert_array_equal(pullback(as_tensor(np.ones(5)))[0].numpy(), np.zeros(5))


def test_gradients_of_clamp_at_its_bounds() -> None:
    torch = pytest.importorskip("torch")
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    for low, high in ((-1.0, 1.0), (None, 1.0), (-1.0, None)):
        f, theirs = lambda x, a=low, b=high: fn.clamp(x, a, b), lambda x, a=low, b=high: torch.clamp(x, a, b)
        ((got, expected),) = _both_gradients(f, theirs, x)
        np.testing.assert_array_equal(got, expected)
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, np.nan, np.inf, 1.0, 1.0])
    low, high = np.array([-1.0] * 7 + [np.nan, -1.0]), np.array([1.0] * 8 + [np.nan])
    for got, expected in _both_gradients(fn.clamp, torch.clamp, x, low, high):
        np.testing.assert_array_equal(got, expected)


def test_masked_nan_does_not_poison_the_gradient_of_where() -> None:
    x = as_tensor(np.array([np.nan, 1.0, np.inf]))
    _, pullback = vjp(lambda x: fn.where(fn.isfinite(x), x, 0.0), x)
    np.testing.assert_array_equal(numbers(pullback(as_tensor(np.array([2.0, 3.0, 4.0])))[0]), [0.0, 3.0, 0.0])


# ---- refusals -------------------------------------------------------------------------------------------------------
def _t(*values: Any, dtype: str) -> Tensor:
    return as_tensor(np.array(values, dtype))


@pytest.mark.parametrize("name", ["add", "mul", "maximum", "eq", "logical_and", "atan2", "pow"])
def test_shapes_that_do_not_broadcast(name: str) -> None:
    x, y = as_tensor(np.ones((2, 3))), as_tensor(np.ones((4, 3)))
    with pytest.raises(ShapeError, match=rf"{name}: shapes \(2, 3\) and \(4, 3\) do not broadcast"):
        ours(name)(x, y)
    with pytest.raises(ValueError, match="where: shapes"):
        fn.where(fn.gt(x, 0), x, y)


@pytest.mark.parametrize(
    "one,two", [("uint32", "int32"), ("uint64", "int64"), ("uint16", "uint8"), ("uint32", "uint64")]
)
def test_dtypes_that_do_not_promote(one: str, two: str) -> None:
    with pytest.raises(DTypeError, match=f"add: .*{one}.*{two}.*convert one"):
        fn.add(_t(1, dtype=one), _t(1, dtype=two))


@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_integer_division_by_zero(name: str) -> None:
    with pytest.raises(ZeroDivisionError, match="integer division"):
        ours(name)(_t(1, 2, dtype="int64"), _t(1, 0, dtype="int64"))
    with pytest.raises(ZeroDivisionError):
        ours(name)(_t(1, 2, dtype="int64"), 0)
    with pytest.raises(ZeroDivisionError):
        fn.div(_t(1, dtype="int64"), 0, rounding_mode="trunc")


def test_operations_that_bools_do_not_have() -> None:
    flags = as_tensor(np.array([True, False]))
    for name in ("sub", "floor_divide", "remainder", "pow"):
        with pytest.raises(DTypeError, match=f"{name}: not defined for bool"):
            ours(name)(flags, flags)
    for name in ("neg", "floor"):
        with pytest.raises(DTypeError, match=f"{name}: not defined for bool"):
            ours(name)(flags)


def test_operations_that_floats_do_not_have() -> None:
    x = as_tensor(np.ones(2))
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift"):
        with pytest.raises(DTypeError, match=f"{name}: not defined for float64"):
            ours(name)(x, x)
    with pytest.raises(DTypeError, match="bitwise_not: not defined for float64"):
        fn.bitwise_not(x)


def test_arguments_that_make_no_sense() -> None:
    x = as_tensor(np.ones(2))
    with pytest.raises(DTypeError, match="where: condition must be bool, got float64"):
        fn.where(x, x, x)
    with pytest.raises(ValueError, match="clamp: at least one of min and max"):
        fn.clamp(x)
    with pytest.raises(ValueError, match="div: rounding_mode must be"):
        fn.div(x, x, rounding_mode="up")
    with pytest.raises(ValueError, match="pow: integers cannot be raised to negative"):
        m.pow(_t(2, dtype="int64"), -1)
    for wrong in ("1", None, [1.0, 2.0], object()):
        with pytest.raises(DTypeError, match=r"add: expected a (number or a tensor|tensor or a number), got"):
            fn.add(x, wrong)


# ---- kernels beside NumPy ---------------------------------------------------------------------------------------------
def implementations(function: Callable, arrays: list) -> list:
    """What each implementation of an operation that applies makes of the arrays."""
    return [outs[0] for outs in h.by_each_way(function.primitive, arrays).values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["neg", "relu", "exp", "log", "tanh", "sigmoid", "sin", "cos", "expm1", "log1p"])
def test_unary_kernels_agree_with_numpy(name: str, dtype: str) -> None:
    x = np.random.default_rng(0).uniform(-3, 3, (1000, 700)).astype(dtype)
    x[0, :4] = [np.nan, np.inf, -np.inf, 0]
    function = getattr(fn, name, None) or getattr(m, name)
    kernel, plain = implementations(function, [x])
    np.testing.assert_allclose(kernel, plain, 1e-6 if dtype == "float32" else 1e-14)
    np.testing.assert_array_equal(implementations(function, [x.T])[0], kernel.T)
    assert planned(function.primitive, [x[:3, :3]], {}).name == "numpy"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "true_divide", "maximum", "minimum", "logaddexp"])
def test_binary_kernels_agree_with_numpy(name: str, dtype: str) -> None:
    x, y = np.random.default_rng(0).uniform(-3, 3, (2, 1000, 700)).astype(dtype)
    x[0, :4], y[0, 1:5] = [np.nan, np.inf, -np.inf, 0], [np.nan, np.inf, 1, 2]
    function, two = getattr(fn, name, None) or getattr(m, name), np.array(2, dtype)
    for pair in ([x, y], [x, two], [two, y]):
        *kernels, plain = implementations(function, pair)
        tolerance = 1e-6 if dtype == "float32" else 1e-14
        assert kernels
        for kernel in kernels:
            np.testing.assert_allclose(kernel, plain, tolerance, tolerance)
    for pair in ([x[:1], y[:, :1]], [x.T, y.T], [x[:3, :3], y[:3, :3]]):
        assert planned(function.primitive, pair, {}).name == "numpy"
