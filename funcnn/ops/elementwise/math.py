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
from funcnn.kernels.cpu.elementwise import functions, host
from funcnn.kernels.cpu.elementwise import loops as kernels
from funcnn.kernels.cpu.elementwise.launch import Loop, with_kernel
from funcnn.ops.base import costs
from funcnn.ops.base.batching import batch_elementwise
from funcnn.ops.base.costs import ERF_FLOPS, EXP_FLOPS, LOG_FLOPS, TANH_FLOPS, TRIG_FLOPS
from funcnn.ops.base.declare import binary, flat_slope, unary
from funcnn.ops.base.dims import broadcast
from funcnn.ops.base.promote import promoted, require_floating, require_same_dtype, to_tensor
from funcnn.ops.base.registry import note, operation
from funcnn.ops.base.structure import unbroadcast
from funcnn.ops.elementwise.arithmetic import add, div, mul, neg, square, sub
from funcnn.ops.elementwise.comparison import eq, ge, logical_and
from funcnn.ops.elementwise.curves import gradient
from funcnn.ops.elementwise.select import where

_TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)
# An element's, by a polynomial of single precision and what is around it.
_LN2, _LN10 = math.log(2.0), math.log(10.0)
ELEMENTS_FOR_TRIG = 1 << 14  # from which sines and cosines leave NumPy
ELEMENTS_FOR_KERNEL = 1 << 12  # below, NumPy's several passes in the cache cost less than calling a kernel


# ---- rounding ---------------------------------------------------------------------------------------------------------
def _step(name: str, kernel: Any, function: np.ufunc, doc: str) -> Any:
    """A function that rounds; integers are copied."""
    slope = lambda g, x, o: flat_slope(g)
    return unary(name, kernel, slope, doc, keeps="", to_float=False, kinds="iuf", numpy=host.rounded(function))


ceil = _step("ceil", functions.ceil, np.ceil, "The next integer upwards.")
floor = _step("floor", functions.floor, np.floor, "The next integer downwards.")
trunc = _step("trunc", functions.trunc, np.trunc, "The integer part, towards zero.")
_round = _step("round", functions.round_, np.rint, "The nearest integer, halves to even.")
fix = trunc
note("fix", fix)


@operation(_round.primitive)
def round(input: Any, *, decimals: int = 0) -> Tensor:
    """The nearest multiple of ``10 ** -decimals``, halves to even. Raises ``DTypeError`` for decimals of integers."""
    if decimals == 0:
        return _round(input)
    input = require_floating("round to decimals", to_tensor(input))
    scale = 10.0 ** abs(decimals)
    return div(_round(mul(input, scale)), scale) if decimals > 0 else mul(_round(div(input, scale)), scale)


@operation()
def frac(input: Any) -> Tensor:
    """``input - trunc(input)``, of floating-point numbers."""
    x = require_floating("frac", to_tensor(input))
    return sub(x, trunc(x))


# ---- exponentials, logarithms, powers ---------------------------------------------------------------------------------
exp = unary("exp", kernels.exp, lambda g, x, o: mul(g, o), "``e ** input``.", keeps="o", ns=0.3, flops=EXP_FLOPS)
exp2 = unary(
    "exp2", functions.exp2, lambda g, x, o: mul(g, mul(o, _LN2)), "``2 ** input``.", keeps="o", flops=EXP_FLOPS
)
expm1 = unary(
    "expm1", kernels.expm1, lambda g, x, o: mul(g, add(o, 1.0)), "``e ** input - 1``, exact near 0.", keeps="o",
    ns=0.4, flops=EXP_FLOPS + 4,
)  # fmt: skip
log = unary("log", kernels.log, lambda g, x, o: div(g, x), "The natural logarithm.", ns=0.4, flops=LOG_FLOPS)
log2 = unary("log2", functions.log2, lambda g, x, o: div(g, mul(x, _LN2)), "The logarithm to base 2.", flops=LOG_FLOPS)
log10 = unary(
    "log10", functions.log10, lambda g, x, o: div(g, mul(x, _LN10)), "The logarithm to base 10.", flops=LOG_FLOPS
)
log1p = unary(
    "log1p",
    kernels.log1p,
    lambda g, x, o: div(g, add(x, 1.0)),
    "``log(1 + input)``, exact near 0.",
    ns=0.5,
    flops=LOG_FLOPS + 2,
)
sqrt = unary("sqrt", kernels.sqrt, lambda g, x, o: div(g, mul(o, 2.0)), "The square root.", keeps="o", ns=0.15)
rsqrt = unary(
    "rsqrt",
    kernels.rsqrt,
    lambda g, x, o: mul(mul(g, -0.5), mul(o, mul(o, o))),
    "``1 / sqrt(input)``.",
    keeps="o",
    numpy=host.rsqrt,
    ns=0.2,
    flops=2,
)


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
    functions.pow_,
    _pow_dx,
    _pow_dy,
    "``input ** exponent``.",
    keeps="io",
    kinds="iuf",
    numpy=host.power,
    flops=LOG_FLOPS + EXP_FLOPS + 2,
)


@operation(_pow.primitive)
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


logaddexp = binary(
    "logaddexp",
    kernels.logaddexp,
    lambda g, x, y, o: mul(g, sigmoid(sub(x, y))),
    lambda g, x, y, o: mul(g, sigmoid(sub(y, x))),
    "``log(exp(input) + exp(other))`` without overflow.",
    to_float=True,
    ns=1.2,
    least=ELEMENTS_FOR_KERNEL,
    flops=LOG_FLOPS + EXP_FLOPS + 3,
    inplace=False,
)
hypot = binary(
    "hypot",
    functions.hypot,
    lambda g, x, y, o: mul(g, div(x, o)),
    lambda g, x, y, o: mul(g, div(y, o)),
    "``sqrt(input**2 + other**2)`` without overflow.",
    keeps="io",
    to_float=True,
    flops=4,
)

# ---- trigonometric and hyperbolic -------------------------------------------------------------------------------------
sin = unary(
    "sin",
    kernels.sin,
    lambda g, x, o: mul(g, cos(x)),
    "The sine of radians.",
    ns=0.5,
    least=ELEMENTS_FOR_TRIG,
    flops=TRIG_FLOPS,
)
cos = unary(
    "cos",
    kernels.cos,
    lambda g, x, o: neg(mul(g, sin(x))),
    "The cosine of radians.",
    ns=0.5,
    least=ELEMENTS_FOR_TRIG,
    flops=TRIG_FLOPS,
)
tan = unary(
    "tan",
    functions.tan,
    lambda g, x, o: mul(g, add(mul(o, o), 1.0)),
    "The tangent of radians.",
    keeps="o",
    flops=TRIG_FLOPS + 4,
)
asin = unary(
    "asin", functions.asin, lambda g, x, o: div(g, sqrt(sub(1.0, mul(x, x)))), "The inverse sine, in radians.",
    numpy="arcsin", flops=TRIG_FLOPS,
)  # fmt: skip
acos = unary(
    "acos", functions.acos, lambda g, x, o: neg(div(g, sqrt(sub(1.0, mul(x, x))))), "The inverse cosine, in radians.",
    numpy="arccos", flops=TRIG_FLOPS,
)  # fmt: skip
atan = unary(
    "atan", functions.atan, lambda g, x, o: div(g, add(mul(x, x), 1.0)), "The inverse tangent, in radians.",
    numpy="arctan", flops=TRIG_FLOPS,
)  # fmt: skip
atan2 = binary(
    "atan2",
    functions.atan2,
    lambda g, x, y, o: mul(g, _over_square(y, x, y)),
    lambda g, x, y, o: neg(mul(g, _over_square(x, x, y))),
    "The angle of the point (``other``, ``input``), in radians.",
    to_float=True,
    numpy="arctan2",
    flops=TRIG_FLOPS + 4,
)
sinh = unary("sinh", functions.sinh, lambda g, x, o: mul(g, cosh(x)), "The hyperbolic sine.", flops=TANH_FLOPS)
cosh = unary("cosh", functions.cosh, lambda g, x, o: mul(g, sinh(x)), "The hyperbolic cosine.", flops=TANH_FLOPS)
tanh_grad_p = gradient(
    "tanh_grad",
    Loop(kernels.tanh_grad, 0.2, flops=3),
    lambda o: mul(o, -2.0),
    host.tanh_grad,
    ELEMENTS_FOR_KERNEL,
)
tanh = unary(
    "tanh",
    kernels.tanh,
    lambda g, x, o: tanh_grad_p(g, o),
    "The hyperbolic tangent.",
    keeps="o",
    ns=0.4,
    flops=TANH_FLOPS,
)
asinh = unary(
    "asinh", functions.asinh, lambda g, x, o: div(g, sqrt(add(mul(x, x), 1.0))), "The inverse hyperbolic sine.",
    numpy="arcsinh", flops=LOG_FLOPS + 6,
)  # fmt: skip
acosh = unary(
    "acosh", functions.acosh, lambda g, x, o: div(g, sqrt(sub(mul(x, x), 1.0))), "The inverse hyperbolic cosine.",
    numpy="arccosh", flops=LOG_FLOPS + 6,
)  # fmt: skip
atanh = unary(
    "atanh", functions.atanh, lambda g, x, o: div(g, sub(1.0, mul(x, x))), "The inverse hyperbolic tangent.",
    numpy="arctanh", flops=LOG_FLOPS + 4,
)  # fmt: skip

# ---- the error function's family --------------------------------------------------------------------------------------
erf = unary(
    "erf",
    kernels.erf,
    lambda g, x, o: mul(g, _bell(x)),
    "The error function.",
    numpy=False,
    ns=0.9,
    flops=ERF_FLOPS,
)
erfc = unary(
    "erfc",
    kernels.erfc,
    lambda g, x, o: neg(mul(g, _bell(x))),
    "``1 - erf(input)``, exact in the tail.",
    numpy=False,
    ns=0.9,
    flops=ERF_FLOPS + EXP_FLOPS,
)
_erfinv = unary(
    "erfinv",
    kernels.erfinv,
    lambda g, x, o: div(g, _bell(o)),
    "The inverse of ``erf`` on (-1, 1); infinite at the ends, NaN outside.",
    keeps="o",
    numpy=False,
    ns=70.0,
    flops=LOG_FLOPS + ERF_FLOPS,
)


@operation(_erfinv.primitive)
def erfinv(input: Any) -> Tensor:
    """The inverse of ``erf`` on (-1, 1); infinite at the ends, NaN outside."""
    return rescue(_erfinv(input))


def _bell(x: Tensor) -> Tensor:
    return mul(exp(neg(mul(x, x))), _TWO_OVER_ROOT_PI)


# ---- activations with a loop of their own -----------------------------------------------------------------------------
sigmoid_grad_p = gradient(
    "sigmoid_grad",
    Loop(kernels.sigmoid_grad, 0.2, flops=3),
    lambda o: sub(1.0, mul(o, 2.0)),
    host.sigmoid_grad,
    ELEMENTS_FOR_KERNEL,
)
relu_grad_p = gradient("relu_grad", Loop(activation_kernels.relu_grad, 0.2), None, host.relu_grad, ELEMENTS_FOR_KERNEL)
sigmoid = unary(
    "sigmoid",
    kernels.sigmoid,
    lambda g, x, o: sigmoid_grad_p(g, o),
    "``1 / (1 + exp(-input))``.",
    keeps="o",
    numpy=host.sigmoid,
    ns=0.4,
    least=ELEMENTS_FOR_KERNEL,
    flops=EXP_FLOPS + 2,
)
relu = unary(
    "relu",
    activation_kernels.relu,
    lambda g, x, o: relu_grad_p(g, o),
    "``max(0, input)``; the gradient at 0 is 0.",
    keeps="o",
    to_float=False,
    kinds="iuf",
    numpy=host.relu,
    ns=0.1,
    least=4 * ELEMENTS_FOR_KERNEL,
)


# ---- interpolation ----------------------------------------------------------------------------------------------------
def _lerp_shape(x: Any, y: Any, weight: Any) -> tuple:
    require_same_dtype("lerp", x, y, weight)
    return (Aval(broadcast("lerp", tuple(x.shape), tuple(y.shape), tuple(weight.shape)), x.dtype),)


def _lerp_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    x, y, weight = ins
    return (
        lambda: unbroadcast(mul(g, sub(1.0, weight)), x._v.shape),
        lambda: unbroadcast(mul(g, weight), y._v.shape),
        lambda: unbroadcast(mul(g, sub(y, x)), weight._v.shape),
    )


lerp_p = Primitive(
    "lerp",
    _lerp_shape,
    cpu=with_kernel(Loop(functions.lerp, flops=4), host.lerp, math.inf),
    vjp=_lerp_vjp,
    scalar=functions.lerp.scalar,
    flops=costs.each(3),
)
object.__setattr__(lerp_p, "batch", batch_elementwise(lerp_p))


@operation(lerp_p)
def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    """``input + weight * (end - input)``, counted from the nearer end."""
    return lerp_p(*promoted("lerp", input, end, weight, to_float=True))
