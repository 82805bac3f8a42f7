"""The reductions: their scalar functions, and the kernels made of them by the template in ``runs.py``.

``value`` is what counts of an element, ``join`` makes one partial result of two, ``finish`` the result of the last. ``param``
is a float64: the count of a mean, or the sign of an extremum.
"""

from __future__ import annotations

from math import inf

import numpy as np

from funcnn.kernels.cpu.build.compile import device_function, exact_function, kernel
from funcnn.kernels.cpu.reduce.runs import reduction
from funcnn.kernels.cpu.vector.bits import like, maximum
from funcnn.kernels.cpu.vector.rows import largest_in_row


# ---- what counts of an element ------------------------------------------------------------------------------------------
@device_function
def itself(x, centre, param):
    """Returns x."""
    return x


@device_function
def square(x, centre, param):
    """Returns x^2, in float64, where it neither overflows nor vanishes for any float32."""
    return np.float64(x) * np.float64(x)


@device_function
def deviation(x, centre, param):
    """Returns x - centre, or its square where ``param`` is not 0, in float64."""
    off = np.float64(x) - centre
    return off * (off if param else 1.0)


@device_function
def signed(x, centre, param):
    """Returns x times ``param``, 1 or -1."""
    return x * like(x, param)


@device_function
def is_true(x, centre, param):
    """Returns 1 for an element that is not zero (NaN is not), else 0, in the element's type."""
    return like(x, x != like(x, 0.0))


# ---- how partial results join -------------------------------------------------------------------------------------------
@device_function
def plus(a, b):
    """Returns a + b."""
    return a + b


@device_function
def times(a, b):
    """Returns a b."""
    return a * b


# ---- the result ---------------------------------------------------------------------------------------------------------
@device_function
def whole(total, param):
    """Returns the joined values as they are."""
    return total


@device_function
def divided(total, param):
    """Returns the joined values over ``param``: 1, or the count for a mean."""
    return total / param


@device_function
def root(total, param):
    """Returns the square root of the joined values."""
    return np.sqrt(total)


LEAST_SQUARES, MOST_SQUARES = 1e-30, 1e38  # a sum of squares in float32 between them lost no more than its rounding


# ---- the kernels --------------------------------------------------------------------------------------------------------
@device_function
def largest_run(q, count, first, centre, param):
    """Returns the maximum of contiguous elements times ``param``."""
    return largest_in_row(q, count, like(first, param))


AGAIN = (None, None, None)  # may reduce its own results


@device_function
def square_run(q, count, first, centre, param):
    """Returns the sum of squares of contiguous elements, in their own type where that neither overflows nor vanishes there.

    A loop that adds float32 to float64 has vectors half as long.
    """
    part = like(q[0], 0.0)
    for k in range(count):
        part += q[k] * q[k]
    if LEAST_SQUARES < part < MOST_SQUARES:
        return like(first, part)
    total = first
    for k in range(count):
        total += square(q[k], centre, param)
    return total


sums = reduction("sums", 0.0, plus, itself, divided, steps=AGAIN)  # a mean's param is the count only where it ends
products = reduction("products", 1.0, times, itself, whole, steps=AGAIN)
largest = reduction(
    "largest", -inf, maximum, signed, times, run=largest_run, steps=AGAIN
)  # of negated ones: the smallest
truths = reduction("truths", 0.0, plus, is_true, whole, steps=(None, sums, sums))
some = reduction("some", 0.0, maximum, is_true, whole, steps=AGAIN)
every = reduction("every", 1.0, times, is_true, whole, steps=AGAIN)
squares = reduction("squares", 0.0, plus, square, whole, steps=(None, sums, sums))
roots = reduction("roots", 0.0, plus, itself, root)
norms = reduction("norms", 0.0, plus, square, root, run=square_run, steps=(squares, sums, roots))
deviations = reduction("deviations", 0.0, plus, deviation, whole, centred=True)


# ---- moments ------------------------------------------------------------------------------------------------------------
@exact_function
def quotient(a, b):
    """Returns a / b, not a times 1 / b."""
    return a / b


@kernel(touches={"out": lambda sums: sums.size})
def quotients(sums, by, out):
    """Divides ``sums`` by a number in place, and copies them to ``out`` in its own type; arrays are flat."""
    for i in range(sums.size):
        sums[i] = quotient(sums[i], by)
        out[i] = like(out[0], sums[i])
