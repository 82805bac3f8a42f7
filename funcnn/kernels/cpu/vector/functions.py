"""Vector mathematics: exp, log, tanh, sigmoid, erf and their kin as scalar functions without branches.

Each takes a float32 or a float64 and computes in that type, within 4 ulp over the whole range, with denormals, infinities
and NaN. They are selects, fused multiply-adds and a few bits (``bits.py``), so LLVM turns a plain loop
``for i in range(n): q[i] = exp(p[i])`` over ``pointer``s into vector code of the CPU's width.

Ranges are reduced after Cody and Waite ("Software Manual for the Elementary Functions", 1980). The polynomials were fitted
by ``scripts/fit_vmath.py``; the degrees leave an approximation error below a tenth of an ulp.
"""

from __future__ import annotations

import math

from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.vector.bits import (
    bit,
    copysign,
    exponent,
    mantissa,
    pick,
    polynomial,
    power_of_two,
    times_power,
)
from funcnn.kernels.cpu.vector.instructions import fma
from funcnn.kernels.cpu.vector.tables import (
    COS_DOUBLE,
    COS_SINGLE,
    ERF_DOUBLE,
    ERF_SINGLE,
    ERFCX_DOUBLE,
    ERFCX_SINGLE,
    EXP_DOUBLE,
    EXP_SINGLE,
    LN2_DOUBLE,
    LN2_REST_DOUBLE,
    LN2_REST_SINGLE,
    LN2_SINGLE,
    LOG2E,
    LOG_DOUBLE,
    LOG_SINGLE,
    MAGIC_DOUBLE,
    MAGIC_SINGLE,
    SIN_DOUBLE,
    SIN_SINGLE,
    TWO_OVER_PI,
)


# ---- exponential ------------------------------------------------------------------------------------------------------
@exact_function
def exp(x):
    """e^x: x = n log(2) + r, |r| < 0.347, and a polynomial in r times 2^n."""
    low, high = pick(x, -110.0, -760.0), pick(x, 90.0, 720.0)  # beyond: 0 and infinity
    x = low if x < low else x
    x = high if x > high else x
    magic = pick(x, MAGIC_SINGLE, MAGIC_DOUBLE)
    t = fma(x, pick(x, LOG2E, LOG2E), magic)
    n = t - magic
    r = fma(n, pick(x, -LN2_SINGLE, -LN2_DOUBLE), x)
    r = fma(n, pick(x, -LN2_REST_SINGLE, -LN2_REST_DOUBLE), r)
    one = pick(x, 1.0, 1.0)
    return times_power(fma(r * r, polynomial(r, EXP_SINGLE, EXP_DOUBLE), r) + one, t)


@exact_function
def exp_below(x):
    """e^x for x up to 1, as a softmax needs it, in two thirds of the instructions of ``exp``: denormal results are 0."""
    magic = pick(x, MAGIC_SINGLE, MAGIC_DOUBLE)
    t = fma(x, pick(x, LOG2E, LOG2E), magic)
    n = t - magic
    r = fma(n, pick(x, -LN2_SINGLE, -LN2_DOUBLE), x)
    r = fma(n, pick(x, -LN2_REST_SINGLE, -LN2_REST_DOUBLE), r)
    out = (fma(r * r, polynomial(r, EXP_SINGLE, EXP_DOUBLE), r) + pick(x, 1.0, 1.0)) * power_of_two(t)
    return pick(x, 0.0, 0.0) if x < pick(x, -87.33, -708.39) else out


@exact_function
def expm1(x):
    """e^x - 1, also near 0: (2^n - 1) + 2^n (e^r - 1)."""
    one = pick(x, 1.0, 1.0)
    low, high = pick(x, -30.0, -50.0), pick(x, 90.0, 720.0)  # beyond: -1 and infinity
    y = low if x < low else x
    y = high if y > high else y
    magic = pick(x, MAGIC_SINGLE, MAGIC_DOUBLE)
    t = fma(y, pick(x, LOG2E, LOG2E), magic)
    n = t - magic
    r = fma(n, pick(x, -LN2_SINGLE, -LN2_DOUBLE), y)
    r = fma(n, pick(x, -LN2_REST_SINGLE, -LN2_REST_DOUBLE), r)
    p = fma(r * r, polynomial(r, EXP_SINGLE, EXP_DOUBLE), r)
    large = times_power(p + one, t) - one
    power = times_power(one, t)
    small = fma(power, p, power - one)
    out = large if y > pick(x, 20.0, 40.0) else small
    return x if x == pick(x, 0.0, 0.0) else out


@exact_function
def sigmoid(x):
    """1 / (1 + e^-x), and e^x / (1 + e^x) below 0, which keeps the small ones."""
    one = pick(x, 1.0, 1.0)
    e = exp(-abs(x))
    return (e if x < pick(x, 0.0, 0.0) else one) / (one + e)


@exact_function
def tanh(x):
    """u / (u + 2) with u = e^(2 |x|) - 1, and the sign of x."""
    size = abs(x)
    far = pick(x, 10.0, 20.0)  # from here on 1
    size = far if size > far else size
    u = expm1(size + size)
    return copysign(u / (u + pick(x, 2.0, 2.0)), x)


# ---- logarithm --------------------------------------------------------------------------------------------------------
@exact_function
def log_of(f, e):
    """log((1 + f) 2^e) for 1 + f in [sqrt(1/2), sqrt(2)), by s = f / (2 + f) (fdlibm, e_log.c)."""
    s = f / (f + pick(f, 2.0, 2.0))
    half = f * f * pick(f, 0.5, 0.5)
    z = s * s
    rest = fma(s, half + z * polynomial(z, LOG_SINGLE, LOG_DOUBLE), e * pick(f, LN2_REST_SINGLE, LN2_REST_DOUBLE))
    return fma(e, pick(f, LN2_SINGLE, LN2_DOUBLE), f - (half - rest))


@exact_function
def log(x):
    """Returns the natural logarithm; -infinity at 0, NaN below."""
    zero, tiny = pick(x, 0.0, 0.0), pick(x, 2.0**-126, 2.0**-1022)
    small = x < tiny  # denormals are scaled into the normal range
    y = x * pick(x, 2.0**25, 2.0**54) if small else x
    root = pick(x, math.sqrt(0.5), math.sqrt(0.5))
    e = exponent(y, root) - (pick(x, 25.0, 54.0) if small else zero)
    out = log_of(mantissa(y, root) - pick(x, 1.0, 1.0), e)
    out = out if x < pick(x, math.inf, math.inf) else x  # infinity and NaN
    out = pick(x, -math.inf, -math.inf) if x == zero else out
    return pick(x, math.nan, math.nan) if x < zero else out


@exact_function
def log1p(x):
    """log(1 + x), also near 0: 1 + x = (1 + f) 2^e with f = (2^-e - 1) + 2^-e x, which loses no digit of x."""
    one, zero = pick(x, 1.0, 1.0), pick(x, 0.0, 0.0)
    root = pick(x, math.sqrt(0.5), math.sqrt(0.5))
    u = one + x
    e = exponent(u, root)
    m = mantissa(u, root)
    power = m / u  # 2^-e, exactly
    exact = fma(power, x, power - one)
    f = exact if x < pick(x, 1e6, 1e12) else m - one
    out = log_of(f, e)
    out = out if x < pick(x, math.inf, math.inf) else x
    out = pick(x, -math.inf, -math.inf) if x == -one else out
    out = x if x == zero else out
    return pick(x, math.nan, math.nan) if x < -one else out


# ---- error function ---------------------------------------------------------------------------------------------------
@exact_function
def erfc_tail(a, square, rest):
    """erfc(a) for a from 0 to 27, given its square as a sum, most exact above 0.5.

    It is exp(-a^2) times a polynomial in q = (a - k) / (a + k), over a + k. The rounding errors of the sum, the quotient
    and the square are carried along, for the result is sensitive to them.
    """
    one, k = pick(a, 1.0, 1.0), pick(a, 2.0, 3.0)
    large, small = a if a > k else k, k if a > k else a
    total = large + small
    inverse = one / total
    error = fma(small - (total - large), -inverse, fma(-total, inverse, one))
    twice = k * pick(a, -2.0, -2.0)
    q = fma(inverse * error, twice, fma(inverse, twice, one))
    out = inverse * polynomial(q, ERFCX_SINGLE, ERFCX_DOUBLE) * exp(-square)
    return fma(out, error - rest, out)


@exact_function
def erfc_size(a):
    """erfc(a) for a >= 0, most exact above 0.5."""
    far = pick(a, 10.1, 27.3)  # from here on 0
    a = far if a > far else a
    square = a * a
    return erfc_tail(a, square, fma(a, a, -square))


@exact_function
def erf(x):
    """Returns the error function: an odd polynomial within 1 of 0, else 1 - erfc(|x|) with the sign of x."""
    a = abs(x)
    one = pick(x, 1.0, 1.0)
    near = x * polynomial(x * x, ERF_SINGLE, ERF_DOUBLE)
    far = copysign(one - erfc_size(a), x)
    return near if a < one else far


@exact_function
def erfc(x):
    """1 - erf(x), without cancellation for large x."""
    a = abs(x)
    near = fma(-x, polynomial(x * x, ERF_SINGLE, ERF_DOUBLE), pick(x, 1.0, 1.0))
    tail = erfc_size(a)
    far = pick(x, 2.0, 2.0) - tail if x < pick(x, 0.0, 0.0) else tail
    return near if a < pick(x, 0.5, 0.5) else far


# ---- sine and cosine --------------------------------------------------------------------------------------------------
@exact_function
def circle(x, quarters):
    """sin(x + quarters pi / 2) for |x| up to 2^20 in float32, 2^30 in float64: x = n pi / 2 + r, |r| < pi / 4.

    Pi / 2 is a sum of three numbers, each as precise as x: the first fused step is exact, the others round what is left.
    """
    magic = pick(x, MAGIC_SINGLE, MAGIC_DOUBLE)
    t = fma(x, pick(x, TWO_OVER_PI, TWO_OVER_PI), magic)
    n = t - magic
    r = fma(n, pick(x, -1.5707963705062866, -1.5707963267948966), x)
    r = fma(n, pick(x, 4.371138828673793e-08, -6.123233995736766e-17), r)
    r = fma(n, pick(x, 1.7151245100058819e-15, 1.4973849048591833e-33), r)
    z = r * r
    sine = fma(z * r, polynomial(z, SIN_SINGLE, SIN_DOUBLE), r)
    half = fma(z, pick(x, -0.5, -0.5), pick(x, 1.0, 1.0))
    cosine = fma(z * z, polynomial(z, COS_SINGLE, COS_DOUBLE), half)
    quarter = t + quarters
    out = cosine if bit(quarter, 0) else sine
    return -out if bit(quarter, 1) else out


@exact_function
def sin(x):
    """Returns the sine of |x| up to 2^20 in float32, 2^30 in float64 (``far_from_circle`` knows)."""
    zero = pick(x, 0.0, 0.0)
    return x if x == zero else circle(x, zero)  # -0 stays what it is


@exact_function
def cos(x):
    """Returns the cosine of |x| up to 2^20 in float32, 2^30 in float64 (``far_from_circle`` knows)."""
    return circle(x, pick(x, 1.0, 1.0))


@exact_function
def far_from_circle(x):
    """Whether sin and cos need the scalar functions of the system's library, which reduce any angle."""
    return abs(x) > pick(x, 2.0**20, 2.0**30)
