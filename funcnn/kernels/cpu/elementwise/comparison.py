"""Comparisons, logic and bits, elementwise: their scalar functions, and the kernels made of them.

Results of 0 and 1 are bytes, as which bools lie in memory. Integers are computed in 64 bits and stored in their own.
"""

from __future__ import annotations

import numpy as np

from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.elementwise.loops import loop1, loop2

BYTE = np.uint8


# ---- comparisons ------------------------------------------------------------------------------------------------------
@exact_function
def eq_scalar(x, y):
    """Computes x == y."""
    return BYTE(x == y)


@exact_function
def ne_scalar(x, y):
    """x != y."""
    return BYTE(x != y)


@exact_function
def lt_scalar(x, y):
    """x < y."""
    return BYTE(x < y)


@exact_function
def le_scalar(x, y):
    """x <= y."""
    return BYTE(x <= y)


@exact_function
def gt_scalar(x, y):
    """x > y."""
    return BYTE(x > y)


@exact_function
def ge_scalar(x, y):
    """x >= y."""
    return BYTE(x >= y)


@exact_function
def isnan_scalar(x):
    """Whether x is NaN."""
    return BYTE(x != x)


@exact_function
def isinf_scalar(x):
    """Whether x is plus or minus infinity."""
    return BYTE(abs(x) == np.inf)


@exact_function
def isfinite_scalar(x):
    """Whether x is neither NaN nor infinite."""
    return BYTE(abs(x) < np.inf)


eq, ne, lt, le = loop2("eq", eq_scalar), loop2("ne", ne_scalar), loop2("lt", lt_scalar), loop2("le", le_scalar)
gt, ge = loop2("gt", gt_scalar), loop2("ge", ge_scalar)
isnan, isinf = loop1("isnan", isnan_scalar), loop1("isinf", isinf_scalar)
isfinite = loop1("isfinite", isfinite_scalar)


# ---- logic and bits ---------------------------------------------------------------------------------------------------
@exact_function
def logical_and_scalar(x, y):
    """Whether both are not 0."""
    return BYTE((x != 0) & (y != 0))


@exact_function
def logical_or_scalar(x, y):
    """Whether one is not 0."""
    return BYTE((x != 0) | (y != 0))


@exact_function
def logical_xor_scalar(x, y):
    """Whether just one is not 0."""
    return BYTE((x != 0) != (y != 0))


@exact_function
def logical_not_scalar(x):
    """Whether x is 0."""
    return BYTE(x == 0)


@exact_function
def bitwise_and_scalar(x, y):
    """Returns the bits of both."""
    return x & y


@exact_function
def bitwise_or_scalar(x, y):
    """Returns the bits of either."""
    return x | y


@exact_function
def bitwise_xor_scalar(x, y):
    """Returns the bits of just one."""
    return x ^ y


@exact_function
def bitwise_not_scalar(x):
    """Returns the bits that x has not."""
    return ~x


@exact_function
def left_shift_scalar(x, y):
    """x shifted left by y bits; 0 where there are not as many."""
    return x << y if 0 <= y < 64 else x ^ x


@exact_function
def right_shift_scalar(x, y):
    """x shifted right by y bits; its sign where there are not as many."""
    return x >> y if 0 <= y < 64 else (x >> 63) >> 1


logical_and, logical_or = loop2("logical_and", logical_and_scalar), loop2("logical_or", logical_or_scalar)
logical_xor, logical_not = loop2("logical_xor", logical_xor_scalar), loop1("logical_not", logical_not_scalar)
bitwise_and, bitwise_or = loop2("bitwise_and", bitwise_and_scalar), loop2("bitwise_or", bitwise_or_scalar)
bitwise_xor, bitwise_not = loop2("bitwise_xor", bitwise_xor_scalar), loop1("bitwise_not", bitwise_not_scalar)
left_shift, right_shift = loop2("left_shift", left_shift_scalar), loop2("right_shift", right_shift_scalar)
