"""Activations as elementwise loops, each with the loop of its gradient (``loops.py`` says how loops are made).

The gradient computes the activation's pieces again from x: cheaper than keeping and reading them.
"""

from __future__ import annotations

import math

from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.elementwise.loops import loop1, loop2
from funcnn.kernels.cpu.vector.bits import like, pick, polynomial, power_of_two
from funcnn.kernels.cpu.vector.functions import exp, expm1, log1p, sigmoid
from funcnn.kernels.cpu.vector.instructions import fma
from funcnn.kernels.cpu.vector.tables import (
    EXP4_DOUBLE,
    EXP4_SINGLE,
    LN2_DOUBLE,
    LN2_REST_DOUBLE,
    LN2_REST_SINGLE,
    LN2_SINGLE,
    LOG2E,
    MAGIC_DOUBLE,
    MAGIC_SINGLE,
    TAIL_DOUBLE,
    TAIL_SINGLE,
    TAIL_UNDER_DOUBLE,
    TAIL_UNDER_SINGLE,
)

DENSITY_0 = 1.0 / math.sqrt(2.0 * math.pi)
TANH_SCALE, CUBIC = 2.0 * math.sqrt(2.0 / math.pi), 0.044715  # of the tanh form: 1 + tanh(u) is 2 sigmoid(2 u)


# ---- GELU -------------------------------------------------------------------------------------------------------------
@exact_function
def normal(x):
    """Phi(x), the share of the standard normal distribution below x, exact also far below 0; and exp(-x^2 / 2).

    The exponential is 4^n e^r with |r| < log 2, so that its halves 2^n e^r and 2^n are numbers where it is not one any
    more; the square goes into r before it is rounded. Phi(-|x|) is the exponential times a quotient of polynomials, all
    of whose coefficients are positive.
    """
    a, far = abs(x), pick(x, 14.5, 38.8)  # from here on both are 0
    a = far if a > far else a
    half = a * pick(x, -0.5, -0.5)
    magic = pick(x, MAGIC_SINGLE, MAGIC_DOUBLE)
    t = fma(a * half, pick(x, LOG2E / 2, LOG2E / 2), magic)
    n = t - magic
    r = fma(a, half, n * pick(x, -2 * LN2_SINGLE, -2 * LN2_DOUBLE))
    r = fma(n, pick(x, -2 * LN2_REST_SINGLE, -2 * LN2_REST_DOUBLE), r)
    power = power_of_two(t)
    e = polynomial(r, EXP4_SINGLE, EXP4_DOUBLE) * power * power
    tail = e * (polynomial(a, TAIL_SINGLE, TAIL_DOUBLE) / polynomial(a, TAIL_UNDER_SINGLE, TAIL_UNDER_DOUBLE))
    return tail if x < pick(x, 0.0, 0.0) else pick(x, 1.0, 1.0) - tail, e


@exact_function
def gelu_scalar(x):
    """x Phi(x) (arXiv:1606.08415)."""
    return x * normal(x)[0]


@exact_function
def gelu_grad_scalar(g, x):
    """g (Phi(x) + x phi(x))."""
    share, e = normal(x)
    return g * fma(x * pick(x, DENSITY_0, DENSITY_0), e, share)


@exact_function
def gelu_tanh_scalar(x):
    """x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return x * sigmoid(fma(x * x * x, like(x, CUBIC), x) * like(x, TANH_SCALE))


@exact_function
def gelu_tanh_grad_scalar(g, x):
    """g s (1 + x (1 - s) 2 u'), s = sigmoid(2 u)."""
    one, square = like(x, 1.0), x * x
    s = sigmoid(fma(square * x, like(x, CUBIC), x) * like(x, TANH_SCALE))
    slope = fma(square, like(x, 3.0 * CUBIC), one) * like(x, TANH_SCALE)
    return g * (s * fma(x * (one - s), slope, one))


# ---- SiLU and Mish ----------------------------------------------------------------------------------------------------
@exact_function
def silu_scalar(x):
    """x sigmoid(x)."""
    return x * sigmoid(x)


@exact_function
def silu_grad_scalar(g, x):
    """g s (1 + x (1 - s))."""
    s, one = sigmoid(x), like(x, 1.0)
    return g * (s * fma(x, one - s, one))


@exact_function
def mish_scalar(x):
    """x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2) (arXiv:1908.08681)."""
    top, two = like(x, 20.0), like(x, 2.0)  # from here on the fraction is 1
    e = exp(top if x > top else x)
    n = e * (e + two)
    return x * (n / (n + two))


@exact_function
def mish_grad_scalar(g, x):
    """g (n / (n + 2) + 4 x e^x (1 + e^x) / (n + 2)^2)."""
    top, two = like(x, 20.0), like(x, 2.0)
    e = exp(top if x > top else x)
    n = e * (e + two)
    inverse = like(x, 1.0) / (n + two)
    rest = like(x, 4.0) * e * (e + like(x, 1.0)) * inverse * inverse
    return g * fma(n, inverse, x * rest if x < top else like(x, 0.0))


# ---- exponential and logarithm ----------------------------------------------------------------------------------------
@exact_function
def elu_scalar(x, above, below, inner):
    """above x for x > 0, else below (e^(inner x) - 1)."""
    return x * like(x, above) if x > like(x, 0.0) else like(x, below) * expm1(x * like(x, inner))


@exact_function
def elu_grad_scalar(g, x, above, below, inner):
    """above g for x > 0, else g below inner e^(inner x)."""
    low = like(x, below * inner) * exp(x * like(x, inner))
    return g * (like(x, above) if x > like(x, 0.0) else low)


@exact_function
def softplus_scalar(x, beta, threshold):
    """log(1 + e^(beta x)) / beta, or x where beta x > threshold."""
    z, zero = x * like(x, beta), like(x, 0.0)
    out = ((z if z > zero else zero) + log1p(exp(-abs(z)))) / like(x, beta)
    out = x if z > like(x, threshold) else out
    return out if z == z else z


@exact_function
def softplus_grad_scalar(g, x, beta, threshold):
    """g sigmoid(beta x), or g where beta x > threshold."""
    z = x * like(x, beta)
    return g if z > like(x, threshold) else g * sigmoid(z)


# ---- pieces of lines --------------------------------------------------------------------------------------------------
@exact_function
def leaky_relu_scalar(x, slope):
    """x for x > 0, else slope x."""
    return x if x > like(x, 0.0) else x * like(x, slope)


@exact_function
def leaky_relu_grad_scalar(g, x, slope):
    """g for x > 0, else slope g."""
    return g if x > like(x, 0.0) else g * like(x, slope)


@exact_function
def hardswish_scalar(x):
    """x min(max(x + 3, 0), 6) / 6 (arXiv:1905.02244)."""
    zero, six = like(x, 0.0), like(x, 6.0)
    y = x + like(x, 3.0)
    y = zero if y < zero else y
    return x * ((six if y > six else y) / six)


@exact_function
def hardswish_grad_scalar(g, x):
    """g (2 x + 3) / 6 within 3 of 0, else g or 0."""
    three = like(x, 3.0)
    inside = g * (x / three + like(x, 0.5))
    inside = g if x >= three else inside
    return like(x, 0.0) if x <= -three else inside


@exact_function
def relu_scalar(x):
    """max(x, 0); NaN stays."""
    zero = like(x, 0.0)
    return zero if x <= zero else x


@exact_function
def relu_grad_scalar(g, o):
    """g where the output is above 0."""
    return like(o, 0.0) if o <= like(o, 0.0) else g


@exact_function
def prelu_scalar(x, w):
    """x for x > 0, else w x."""
    return x if x > like(x, 0.0) else x * w


gelu, gelu_grad = loop1("gelu", gelu_scalar), loop2("gelu_grad", gelu_grad_scalar)
gelu_tanh, gelu_tanh_grad = loop1("gelu_tanh", gelu_tanh_scalar), loop2("gelu_tanh_grad", gelu_tanh_grad_scalar)
silu, silu_grad = loop1("silu", silu_scalar), loop2("silu_grad", silu_grad_scalar)
mish, mish_grad = loop1("mish", mish_scalar), loop2("mish_grad", mish_grad_scalar)
elu, elu_grad = loop1("elu", elu_scalar), loop2("elu_grad", elu_grad_scalar)
softplus, softplus_grad = loop1("softplus", softplus_scalar), loop2("softplus_grad", softplus_grad_scalar)
leaky_relu, leaky_relu_grad = loop1("leaky_relu", leaky_relu_scalar), loop2("leaky_relu_grad", leaky_relu_grad_scalar)
hardswish, hardswish_grad = loop1("hardswish", hardswish_scalar), loop2("hardswish_grad", hardswish_grad_scalar)
relu, relu_grad = loop1("relu", relu_scalar), loop2("relu_grad", relu_grad_scalar)
prelu = loop2("prelu", prelu_scalar)
