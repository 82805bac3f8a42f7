"""Vector mathematics: exp, log, tanh, sigmoid, erf and their kin as scalar functions without branches.

Each takes a float32 or a float64 and computes in that type, within 4 ulp over the whole range, with denormals, infinities
and NaN. They are selects, fused multiply-adds and a few bits (``bits.py``), so LLVM turns a plain loop
``for i in range(n): q[i] = exp(p[i])`` over ``pointer``s into vector code of the CPU's width.

Ranges are reduced after Cody and Waite ("Software Manual for the Elementary Functions", 1980). The polynomials were fitted
by ``scripts/fit_vmath.py``, which prints the tables; the degrees leave an approximation error below a tenth of an ulp.
"""

from __future__ import annotations

import math

from funcnn.kernels.cpu.bits import copysign, exponent, mantissa, pick, polynomial, times_power
from funcnn.kernels.cpu.compile import exact_function
from funcnn.kernels.cpu.vector import fma

MAGIC = 1.5 * 2.0**23, 1.5 * 2.0**52  # see bits.py
MAGIC_SINGLE, MAGIC_DOUBLE = MAGIC
LOG2E = 1.0 / math.log(2.0)
# log(2) as a head whose product with any exponent is exact, and the rest: fdlibm's for float64 (e_exp.c)
LN2_SINGLE, LN2_REST_SINGLE = 0.693145751953125, 1.428606765330187e-06
LN2_DOUBLE, LN2_REST_DOUBLE = 6.93147180369123816490e-01, 1.90821492927058770002e-10
EXP_SINGLE = (0.5, 0.166665769, 0.0416665545, 0.00836319488, 0.00139262034)
EXP_DOUBLE = (
    0.5, 0.1666666666666667, 0.04166666666666667, 0.00833333333332612, 0.0013888888888883737, 0.00019841269873874973,
    2.480158732558584e-05, 2.755725533255441e-06, 2.7557273594799413e-07, 2.510524515390137e-08, 2.0914707069612355e-09,
)  # fmt: skip
LOG_SINGLE = (0.666666666, 0.400001221, 0.285507882, 0.233313538)
LOG_DOUBLE = (
    0.6666666666666666, 0.4000000000000088, 0.28571428570800655, 0.222222223923837, 0.18181795568589937,
    0.15386243592665208, 0.13268669005111386, 0.1308771474739754,
)  # fmt: skip
ERF_SINGLE = (
    1.12837917, -0.376126385, 0.112837825, -0.0268654307, 0.00522103181, -0.000848408041, 0.00011265959, -9.66704457e-06,
)  # fmt: skip
ERF_DOUBLE = (
    1.1283791670955126, -0.37612638903183754, 0.1128379167095512, -0.02686617064512984, 0.0052239776254232985,
    -0.000854832702193483, 0.00012055332902888736, -1.4925647567519332e-05, 1.6462045441468418e-06,
    -1.6364642158167616e-07, 1.4792401209404813e-08, -1.216456005728345e-09, 8.709045129053106e-11,
    -4.230945824295338e-12,
)  # fmt: skip
ERFCX_SINGLE = (
    1.02158271, -0.687160719, 0.279471774, -0.0364412499, -0.0215057147, 0.00647225186, 0.00306168857, -0.000822651391,
    -0.000587997381, 3.85452023e-05, 6.37217892e-05,
)  # fmt: skip
ERFCX_DOUBLE = (
    1.0740069070883398, -0.8833944531698837, 0.5902283571041006, -0.31046726190055346, 0.11952776128737619,
    -0.0268272346249335, -0.0012124166294624522, 0.0030340620078566547, -0.0005483096620976395, -0.00027677789850941934,
    0.00010756126400259214, 3.0398397482557782e-05, -1.746954617697305e-05, -4.749821356946932e-06,
    2.7624471754654947e-06, 9.9961194370367e-07, -4.026121016190961e-07, -2.3336457611801297e-07, 4.0160562323627874e-08,
    4.8962859146095685e-08, 2.4937761649110026e-09, -6.436529032964783e-09, -1.6316945067439049e-09,
)  # fmt: skip


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
    """The natural logarithm; -infinity at 0, NaN below."""
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
    """The error function: an odd polynomial within 1 of 0, else 1 - erfc(|x|) with the sign of x."""
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
