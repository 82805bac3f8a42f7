"""Elementwise functions that NumPy has loops of its own for: their scalar functions, and the kernels made of them.

Fused code and other devices are made of the scalar functions; the kernels run where ``prefer("kernel")`` asks for them.
The special cases are C's, as NumPy's are.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.elementwise.loops import loop1, loop2, loop3
from funcnn.kernels.cpu.vector.bits import like, pick


# ---- rounding ---------------------------------------------------------------------------------------------------------
@exact_function
def ceil_scalar(x):
    """Returns the next integer upwards."""
    return like(x, np.ceil(x))


@exact_function
def floor_scalar(x):
    """Returns the next integer downwards."""
    return like(x, np.floor(x))


@exact_function
def trunc_scalar(x):
    """Returns the integer part, towards zero."""
    return like(x, np.trunc(x))


@exact_function
def round_scalar(x):
    """Returns the nearest integer, halves to even."""
    return like(x, np.rint(x))


ceil, floor = loop1("ceil", ceil_scalar), loop1("floor", floor_scalar)
trunc, round_ = loop1("trunc", trunc_scalar), loop1("round", round_scalar)


# ---- quotients --------------------------------------------------------------------------------------------------------
@exact_function
def fmod_scalar(x, y):
    """C's remainder, with the sign of x."""
    return like(x, np.fmod(x, y))


@exact_function
def remainder_scalar(x, y):
    """Returns the remainder with the sign of y; NaN for y = 0."""
    zero, rest = pick(x, 0.0, 0.0), like(x, np.fmod(x, y))
    if rest == zero:
        return like(x, np.copysign(zero, y))
    return rest + y if (rest < zero) != (y < zero) else rest


@exact_function
def floor_divide_scalar(x, y):
    """Returns the largest integer that is at most x / y, from the remainder, so that rounding the quotient does no harm."""
    zero, one = pick(x, 0.0, 0.0), pick(x, 1.0, 1.0)
    if y == zero:
        return x / y
    rest = like(x, np.fmod(x, y))
    quotient = (x - rest) / y
    if rest != zero and (rest < zero) != (y < zero):
        quotient -= one
    if quotient == zero:
        return like(x, np.copysign(zero, x / y))
    whole = like(x, np.floor(quotient))
    return whole + one if quotient - whole > pick(x, 0.5, 0.5) else whole


@exact_function
def trunc_divide_scalar(x, y):
    """Returns the integer part of x / y."""
    return like(x, np.trunc(x / y))


@exact_function
def reciprocal_scalar(x):
    """1 / x."""
    return pick(x, 1.0, 1.0) / x


@exact_function
def number_over_scalar(x, number):
    """Returns a number over x."""
    return like(x, number) / x


fmod, remainder = loop2("fmod", fmod_scalar), loop2("remainder", remainder_scalar)
floor_divide, trunc_divide = loop2("floor_divide", floor_divide_scalar), loop2("trunc_divide", trunc_divide_scalar)
reciprocal, number_over = loop1("reciprocal", reciprocal_scalar), loop1("number_over", number_over_scalar)


# ---- the larger and the smaller, where NaN loses ----------------------------------------------------------------------
@exact_function
def fmax_scalar(x, y):
    """Returns the larger; the number where one is NaN."""
    larger = x if x >= y else y
    return x if y != y else larger


@exact_function
def fmin_scalar(x, y):
    """Returns the smaller; the number where one is NaN."""
    smaller = x if x <= y else y
    return x if y != y else smaller


@exact_function
def without_nan_scalar(x):
    """x; 0 for NaN."""
    return x if x == x else pick(x, 0.0, 0.0)


without_nan = loop1("without_nan", without_nan_scalar)
fmax, fmin = loop2("fmax", fmax_scalar), loop2("fmin", fmin_scalar)


# ---- powers, logarithms, lengths --------------------------------------------------------------------------------------
@exact_function
def exp2_scalar(x):
    """2^x."""
    return like(x, np.exp2(x))


@exact_function
def log2_scalar(x):
    """Returns the logarithm to base 2."""
    return like(x, np.log2(x))


@exact_function
def log10_scalar(x):
    """Returns the logarithm to base 10."""
    return like(x, np.log10(x))


@exact_function
def pow_scalar(x, y):
    """x^y."""
    return like(x, x**y)


@exact_function
def hypot_scalar(x, y):
    """sqrt(x^2 + y^2) without overflow."""
    return like(x, np.hypot(x, y))


exp2, log2, log10 = loop1("exp2", exp2_scalar), loop1("log2", log2_scalar), loop1("log10", log10_scalar)
pow_, hypot = loop2("pow", pow_scalar), loop2("hypot", hypot_scalar)


# ---- trigonometric and hyperbolic -------------------------------------------------------------------------------------
@exact_function
def tan_scalar(x):
    """Returns the tangent."""
    return like(x, np.tan(x))


@exact_function
def asin_scalar(x):
    """Returns the inverse sine."""
    return like(x, np.arcsin(x))


@exact_function
def acos_scalar(x):
    """Returns the inverse cosine."""
    return like(x, np.arccos(x))


@exact_function
def atan_scalar(x):
    """Returns the inverse tangent."""
    return like(x, np.arctan(x))


@exact_function
def atan2_scalar(x, y):
    """Returns the angle of the point (y, x)."""
    return like(x, np.arctan2(x, y))


@exact_function
def sinh_scalar(x):
    """Returns the hyperbolic sine."""
    return like(x, np.sinh(x))


@exact_function
def cosh_scalar(x):
    """Returns the hyperbolic cosine."""
    return like(x, np.cosh(x))


@exact_function
def asinh_scalar(x):
    """Returns the inverse hyperbolic sine."""
    return like(x, np.arcsinh(x))


@exact_function
def acosh_scalar(x):
    """Returns the inverse hyperbolic cosine."""
    return like(x, np.arccosh(x))


@exact_function
def atanh_scalar(x):
    """Returns the inverse hyperbolic tangent."""
    return like(x, np.arctanh(x))


tan, atan2 = loop1("tan", tan_scalar), loop2("atan2", atan2_scalar)
asin, acos, atan = loop1("asin", asin_scalar), loop1("acos", acos_scalar), loop1("atan", atan_scalar)
sinh, cosh = loop1("sinh", sinh_scalar), loop1("cosh", cosh_scalar)
asinh, acosh, atanh = loop1("asinh", asinh_scalar), loop1("acosh", acosh_scalar), loop1("atanh", atanh_scalar)


# ---- interpolation ----------------------------------------------------------------------------------------------------
@exact_function
def lerp_scalar(x, y, weight):
    """x + weight (y - x), counted from the nearer end."""
    span = y - x
    near, far = x + weight * span, y - span * (pick(x, 1.0, 1.0) - weight)
    return near if abs(weight) < pick(x, 0.5, 0.5) else far


lerp = loop3("lerp", lerp_scalar)
