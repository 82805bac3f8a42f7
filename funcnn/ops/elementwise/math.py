"""Elementwise mathematics: rounding, exponentials, logarithms, powers, trigonometric, hyperbolic and error functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.graph import rescue
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import activation as activation_kernels
from funcnn.kernels.cpu.elementwise import loops as kernels
from funcnn.kernels.cpu.elementwise.launch import fast, looped, pairwise, with_kernel
from funcnn.kernels.implementation import NUMPY, host
from funcnn.ops.base.batching import batch_elementwise
from funcnn.ops.base.declare import binary, flat_slope, unary
from funcnn.ops.base.dims import broadcast
from funcnn.ops.base.promote import promoted, require_floating, require_same_dtype, to_tensor
from funcnn.ops.base.structure import unbroadcast
from funcnn.ops.elementwise.arithmetic import add, div, mul, neg, square, sub
from funcnn.ops.elementwise.comparison import eq, ge, logical_and
from funcnn.ops.elementwise.curves import gradient
from funcnn.ops.elementwise.select import where

_TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)
_LN2, _LN10 = math.log(2.0), math.log(10.0)
MANY = 1 << 16  # elements from which a kernel pays that does what one pass of NumPy does
FEW = 1 << 12  # elements; below, NumPy's several passes in the cache cost less than calling a kernel


# ---- rounding ---------------------------------------------------------------------------------------------------------
def _step(name: str, function: np.ufunc, doc: str) -> Any:
    """A function that rounds; integers are copied."""

    def loop(x: np.ndarray, out: np.ndarray) -> None:
        if x.dtype.kind == "f":
            function(x, out)
        else:
            np.copyto(out, x)

    return unary(name, loop, lambda g, x, o: flat_slope(g), doc, keeps="", to_float=False, kinds="iuf")


ceil = _step("ceil", np.ceil, "The next integer upwards.")
floor = _step("floor", np.floor, "The next integer downwards.")
trunc = _step("trunc", np.trunc, "The integer part, towards zero.")
_round = _step("round", np.rint, "The nearest integer, halves to even.")
fix = trunc


def round(input: Any, *, decimals: int = 0) -> Tensor:
    """The nearest multiple of ``10 ** -decimals``, halves to even. Raises ``DTypeError`` for decimals of integers."""
    if decimals == 0:
        return _round(input)
    input = require_floating("round to decimals", to_tensor(input))
    scale = 10.0 ** abs(decimals)
    return div(_round(mul(input, scale)), scale) if decimals > 0 else mul(_round(div(input, scale)), scale)


round.primitive = _round.primitive  # type: ignore[attr-defined]


def frac(input: Any) -> Tensor:
    """``input - trunc(input)``, of floating-point numbers."""
    x = require_floating("frac", to_tensor(input))
    return sub(x, trunc(x))


# ---- exponentials, logarithms, powers ---------------------------------------------------------------------------------
exp = unary("exp", fast("exp", 0.3), lambda g, x, o: mul(g, o), "``e ** input``.", keeps="o")
exp2 = unary("exp2", np.exp2, lambda g, x, o: mul(g, mul(o, _LN2)), "``2 ** input``.", keeps="o")
expm1 = unary(
    "expm1", fast("expm1", 0.4), lambda g, x, o: mul(g, add(o, 1.0)), "``e ** input - 1``, exact near 0.", keeps="o"
)
log = unary("log", fast("log", 0.4), lambda g, x, o: div(g, x), "The natural logarithm.")
log2 = unary("log2", np.log2, lambda g, x, o: div(g, mul(x, _LN2)), "The logarithm to base 2.")
log10 = unary("log10", np.log10, lambda g, x, o: div(g, mul(x, _LN10)), "The logarithm to base 10.")
log1p = unary("log1p", fast("log1p", 0.5), lambda g, x, o: div(g, add(x, 1.0)), "``log(1 + input)``, exact near 0.")
sqrt = unary("sqrt", fast("sqrt", 0.15), lambda g, x, o: div(g, mul(o, 2.0)), "The square root.", keeps="o")
rsqrt = unary(
    "rsqrt",
    with_kernel(kernels.rsqrt, 0.2, lambda ins, outs: np.divide(1.0, np.sqrt(ins[0], outs[0]), outs[0])),
    lambda g, x, o: mul(mul(g, -0.5), mul(o, mul(o, o))),
    "``1 / sqrt(input)``.",
    keeps="o",
)


def _power(ins: list, outs: list) -> None:
    x, y = ins
    if x.dtype.kind != "i" or not np.any(y < 0):
        np.power(x, y, out=outs[0])
        return
    np.power(x, np.maximum(y, 0), out=outs[0])
    np.copyto(outs[0], (x == 1) + (x == -1) * (1 - 2 * (y & 1)), where=y < 0, casting="unsafe")  # the integer part


def _pow_dx(g: Tensor, x: Tensor, y: Tensor, o: Tensor) -> Tensor:
    return where(eq(y, 0.0), 0.0, mul(g, mul(y, pow(x, sub(y, 1.0)))))


def _pow_dy(g: Tensor, x: Tensor, y: Tensor, o: Tensor) -> Tensor:
    return where(logical_and(eq(x, 0.0), ge(y, 0.0)), 0.0, mul(g, mul(o, log(x))))


def _over_square(a: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``a / (x**2 + y**2)``, 0 at the origin."""
    length = add(mul(x, x), mul(y, y))
    return where(eq(length, 0.0), 0.0, div(a, length))


_pow = binary(
    "pow",
    (host("numpy", _power, NUMPY),),
    _pow_dx,
    _pow_dy,
    "``input ** exponent``.",
    keeps="io",
    kinds="iuf",
)


def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``; of integers to a negative power in a tensor the integer part.

    Raises ``ValueError`` for integers to a negative number, ``OverflowError`` for a number that their dtype does not hold.
    """
    if type(exponent) is int and isinstance(input, Tensor) and input._v.dtype.kind in "iu":
        if exponent < 0:
            raise ValueError("pow: integers cannot be raised to negative integer powers; convert the base to float")
        dtypes.number("pow", exponent, input._v.dtype)
    if type(exponent) in (int, float) and exponent == 2 and isinstance(input, Tensor) and input._v.dtype.kind == "f":
        return square(input)
    return _pow(input, exponent)


pow.primitive = _pow.primitive  # type: ignore[attr-defined]
logaddexp = binary(
    "logaddexp",
    pairwise("logaddexp", 1.2, least=FEW),
    lambda g, x, y, o: mul(g, sigmoid(sub(x, y))),
    lambda g, x, y, o: mul(g, sigmoid(sub(y, x))),
    "``log(exp(input) + exp(other))`` without overflow.",
    to_float=True,
)
hypot = binary(
    "hypot",
    np.hypot,
    lambda g, x, y, o: mul(g, div(x, o)),
    lambda g, x, y, o: mul(g, div(y, o)),
    "``sqrt(input**2 + other**2)`` without overflow.",
    keeps="io",
    to_float=True,
)

# ---- trigonometric and hyperbolic -------------------------------------------------------------------------------------
sin = unary("sin", fast("sin", 0.5, least=1 << 14), lambda g, x, o: mul(g, cos(x)), "The sine of radians.")
cos = unary("cos", fast("cos", 0.5, least=1 << 14), lambda g, x, o: neg(mul(g, sin(x))), "The cosine of radians.")
tan = unary("tan", np.tan, lambda g, x, o: mul(g, add(mul(o, o), 1.0)), "The tangent of radians.", keeps="o")
asin = unary("asin", np.arcsin, lambda g, x, o: div(g, sqrt(sub(1.0, mul(x, x)))), "The inverse sine, in radians.")
acos = unary(
    "acos", np.arccos, lambda g, x, o: neg(div(g, sqrt(sub(1.0, mul(x, x))))), "The inverse cosine, in radians."
)
atan = unary("atan", np.arctan, lambda g, x, o: div(g, add(mul(x, x), 1.0)), "The inverse tangent, in radians.")
atan2 = binary(
    "atan2",
    np.arctan2,
    lambda g, x, y, o: mul(g, _over_square(y, x, y)),
    lambda g, x, y, o: neg(mul(g, _over_square(x, x, y))),
    "The angle of the point (``other``, ``input``), in radians.",
    to_float=True,
)
sinh = unary("sinh", np.sinh, lambda g, x, o: mul(g, cosh(x)), "The hyperbolic sine.")
cosh = unary("cosh", np.cosh, lambda g, x, o: mul(g, sinh(x)), "The hyperbolic cosine.")
tanh_grad_p = gradient(
    "tanh_grad",
    with_kernel(kernels.tanh_grad, 0.2, lambda ins, outs: np.multiply(ins[0], 1 - ins[1] * ins[1], outs[0]), FEW),
    lambda o: mul(o, -2.0),
)
tanh = unary("tanh", fast("tanh", 0.4), lambda g, x, o: tanh_grad_p(g, o), "The hyperbolic tangent.", keeps="o")
asinh = unary("asinh", np.arcsinh, lambda g, x, o: div(g, sqrt(add(mul(x, x), 1.0))), "The inverse hyperbolic sine.")
acosh = unary("acosh", np.arccosh, lambda g, x, o: div(g, sqrt(sub(mul(x, x), 1.0))), "The inverse hyperbolic cosine.")
atanh = unary("atanh", np.arctanh, lambda g, x, o: div(g, sub(1.0, mul(x, x))), "The inverse hyperbolic tangent.")

# ---- the error function's family --------------------------------------------------------------------------------------
erf = unary(
    "erf",
    looped(kernels.erf, 0.9),
    lambda g, x, o: mul(g, _bell(x)),
    "The error function.",
)
erfc = unary(
    "erfc",
    looped(kernels.erfc, 0.9),
    lambda g, x, o: neg(mul(g, _bell(x))),
    "``1 - erf(input)``, exact in the tail.",
)
_erfinv = unary(
    "erfinv",
    looped(kernels.erfinv, 70.0),
    lambda g, x, o: div(g, _bell(o)),
    "The inverse of ``erf`` on (-1, 1); infinite at the ends, NaN outside.",
    keeps="o",
)


def erfinv(input: Any) -> Tensor:
    """The inverse of ``erf`` on (-1, 1); infinite at the ends, NaN outside."""
    return rescue(_erfinv(input))


erfinv.primitive = _erfinv.primitive  # type: ignore[attr-defined]


def _bell(x: Tensor) -> Tensor:
    return mul(exp(neg(mul(x, x))), _TWO_OVER_ROOT_PI)


# ---- activations with a loop of their own -----------------------------------------------------------------------------
def _sigmoid(ins: list, outs: list) -> None:
    out = np.negative(ins[0], outs[0])
    np.exp(out, out)
    np.add(out, 1.0, out)
    np.reciprocal(out, out)


def _sigmoid_grad(ins: list, outs: list) -> None:
    g, o = ins
    np.multiply(g, o * (1 - o), outs[0])


def _relu_grad(ins: list, outs: list) -> None:
    np.copyto(outs[0], ins[0])
    np.putmask(outs[0], ins[1] <= 0, 0)


sigmoid_grad_p = gradient(
    "sigmoid_grad", with_kernel(kernels.sigmoid_grad, 0.2, _sigmoid_grad, FEW), lambda o: sub(1.0, mul(o, 2.0))
)
relu_grad_p = gradient("relu_grad", with_kernel(activation_kernels.relu_grad, 0.2, _relu_grad, FEW), None)
sigmoid = unary(
    "sigmoid",
    with_kernel(kernels.sigmoid, 0.4, _sigmoid, FEW),
    lambda g, x, o: sigmoid_grad_p(g, o),
    "``1 / (1 + exp(-input))``.",
    keeps="o",
)
relu = unary(
    "relu",
    with_kernel(activation_kernels.relu, 0.1, lambda ins, outs: np.maximum(ins[0], 0, out=outs[0]), 4 * FEW),
    lambda g, x, o: relu_grad_p(g, o),
    "``max(0, input)``; the gradient at 0 is 0.",
    keeps="o",
    to_float=False,
    kinds="iuf",
)


# ---- interpolation ----------------------------------------------------------------------------------------------------
def _lerp_shape(x: Any, y: Any, weight: Any) -> tuple:
    require_same_dtype("lerp", x, y, weight)
    return (Aval(broadcast("lerp", tuple(x.shape), tuple(y.shape), tuple(weight.shape)), x.dtype),)


def _lerp(ins: list, outs: list) -> None:
    x, y, weight = ins
    span = y - x
    np.copyto(outs[0], np.where(np.abs(weight) < 0.5, x + weight * span, y - span * (1 - weight)))


def _lerp_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    x, y, weight = ins
    return (
        lambda: unbroadcast(mul(g, sub(1.0, weight)), x._v.shape),
        lambda: unbroadcast(mul(g, weight), y._v.shape),
        lambda: unbroadcast(mul(g, sub(y, x)), weight._v.shape),
    )


lerp_p = Primitive("lerp", _lerp_shape, cpu=_lerp, vjp=_lerp_vjp)
object.__setattr__(lerp_p, "batch", batch_elementwise(lerp_p))


def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    """``input + weight * (end - input)``, counted from the nearer end."""
    return lerp_p(*promoted("lerp", input, end, weight, to_float=True))


lerp.primitive = lerp_p  # type: ignore[attr-defined]
