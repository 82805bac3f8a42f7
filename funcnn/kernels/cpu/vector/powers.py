"""Powers as scalar functions without branches, as ``functions.py`` has them: x^y with a logarithm of 65 bits."""

from __future__ import annotations

import math

import numpy as np

from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.vector.bits import (
    copysign,
    exponent,
    like,
    mantissa,
    pick,
    polynomial,
    single,
)
from funcnn.kernels.cpu.vector.functions import exp, log
from funcnn.kernels.cpu.vector.instructions import fma
from funcnn.kernels.cpu.vector.tables import (
    LN2_DOUBLE,
    LN2_REST_DOUBLE,
    POW_DOUBLE,
)


@exact_function
def log_pair(x):
    """log(x) of a float64 x > 0 as a sum of two numbers, to 65 bits: s = f / (2 + f) and s^3 are such sums too."""
    small = x < 2.0**-1022
    y = x * 2.0**54 if small else x
    root = pick(x, math.sqrt(0.5), math.sqrt(0.5))
    e = exponent(y, root) - (54.0 if small else 0.0)
    f = mantissa(y, root) - 1.0
    total = f + 2.0
    inverse = 1.0 / total
    s = f * inverse
    s_rest = fma(-s, f - (total - 2.0), fma(-s, total, f)) * inverse
    z = s * s
    z_rest = fma(s, s, -z) + 2.0 * s * s_rest
    cube = s * z
    cube_rest = fma(s, z, -cube) + (s * z_rest + s_rest * z)
    third = cube * (2.0 / 3.0)
    third_rest = fma(cube, 2.0 / 3.0, -third) + (cube * 3.700743415417188e-17 + cube_rest * (2.0 / 3.0))
    rest = fma(cube * z, polynomial(z, POW_DOUBLE, POW_DOUBLE), third_rest) + 2.0 * s_rest
    high = e * LN2_DOUBLE
    one = high + 2.0 * s
    one_rest = 2.0 * s - (one - high) if e != 0.0 else 0.0
    two = one + third
    two_rest = third - (two - one)
    tail = one_rest + two_rest + fma(e, LN2_REST_DOUBLE, rest)
    head = two + tail
    return head, tail - (head - two)


@exact_function
def whole(y):
    """Whether y is an integer; infinity counts as an even one."""
    a, big = abs(y), pick(y, 2.0**23, 2.0**52)
    return a + big - big == a if a < big else a == a


@exact_function
def size_power(x, y):
    """x^y for x >= 0 in float64: exp(y log(x)), where the product keeps its rounding error."""
    head, tail = log_pair(x)
    head = head if x < math.inf else x
    head = -math.inf if x == 0.0 else head
    product = y * head
    rest = fma(y, head, -product) + y * tail if abs(product) < 800.0 else 0.0
    e = exp(product)
    return fma(e, rest, e) if e < math.inf else e


@exact_function
def pow(x, y):
    """x^y with C's special values: 1^y and x^0 are 1, even for NaN; NaN for x < 0 unless y is an integer."""
    zero, one, infinity = pick(x, 0.0, 0.0), pick(x, 1.0, 1.0), pick(x, math.inf, math.inf)
    a = abs(x)
    v, w = np.float64(a), np.float64(y)
    out = like(x, exp(w * log(v)) if single(x) else size_power(v, w))
    integer = whole(y)
    odd = not whole(y * pick(x, 0.5, 0.5)) if integer else False
    out = copysign(out, x) if odd else out
    bad = (a < infinity if x < zero else False) if not integer else False
    out = pick(x, math.nan, math.nan) if bad else out
    out = one if (a == one if abs(y) == infinity else x == one) else out
    return one if y == zero else out
