"""How elementwise operations run on NumPy: of few elements, and of dtypes that kernels do not compute in.

Of one input a function is ``(x, out)``, of two ``(x, y, out)``, as the declarations take them; else ``(ins, outs)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from funcnn.kernels.cpu.elementwise.launch import selects
from funcnn.kernels.implementation import NUMPY, host
from funcnn.kernels.refusal import refuse_where


# ---- of one input -----------------------------------------------------------------------------------------------------
def sign(x: np.ndarray, out: np.ndarray) -> None:
    """Writes -1, 0 or 1; 0 for NaN."""
    if x.dtype.kind == "b":
        np.copyto(out, x)
    else:
        np.subtract(x > 0, x < 0, out, dtype=out.dtype)


def rounded(function: np.ufunc) -> Callable[[np.ndarray, np.ndarray], None]:
    """Makes the form of a function that rounds which copies integers."""

    def run(x: np.ndarray, out: np.ndarray) -> None:
        if x.dtype.kind == "f":
            function(x, out)
        else:
            np.copyto(out, x)

    return run


def rsqrt(x: np.ndarray, out: np.ndarray) -> None:
    """Writes the inverse of the square root."""
    np.divide(1.0, np.sqrt(x, out), out)


def sigmoid(x: np.ndarray, out: np.ndarray) -> None:
    """Writes 1 / (1 + exp(-x)) in passes over ``out``, which stays in the cache."""
    np.exp(np.negative(x, out), out)
    np.add(out, 1.0, out)
    np.reciprocal(out, out)


def relu(x: np.ndarray, out: np.ndarray) -> None:
    """Writes the larger of x and 0."""
    np.maximum(x, 0, out=out)


def number_over(ins: list, outs: list, number: float) -> None:
    """Writes a number over each element."""
    np.divide(number, ins[0], out=outs[0])


# ---- of two inputs ----------------------------------------------------------------------------------------------------
def power(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """Writes x to the power y; of integers, whose negative powers NumPy refuses, the integer part."""
    if x.dtype.kind != "i" or not np.any(y < 0):
        np.power(x, y, out=out)
        return
    np.power(x, np.maximum(y, 0), out=out)
    np.copyto(out, (x == 1) + (x == -1) * (1 - 2 * (y & 1)), where=y < 0, casting="unsafe")


def _look_for_zero(ins: list, outs: list) -> None:
    x, y = ins
    if y.dtype.kind != "f" and x.size:
        refuse_where(y == 0, 1, y, "a divisor is zero")


def divided(function: Callable) -> Callable:
    """Makes the form of a function that first refuses an integer divisor that is zero."""

    def divide(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        if y.dtype.kind != "f" and not y.all():
            _look_for_zero([x, y], [])
        function(x, y, out=out)

    return divide


def trunc_divide(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """Writes the integer part of the quotient."""
    np.trunc(np.divide(x, y, out), out)


def prelu(x: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
    """Writes x above 0, w x below."""
    np.multiply(x, w, out)
    np.copyto(out, x, where=np.greater(x, 0.0))


def tanh_grad(ins: list, outs: list) -> None:
    """Writes the cotangent times 1 - o^2."""
    np.multiply(ins[0], 1 - ins[1] * ins[1], outs[0])


def sigmoid_grad(ins: list, outs: list) -> None:
    """Writes the cotangent times o (1 - o)."""
    g, o = ins
    np.multiply(g, o * (1 - o), outs[0])


def relu_grad(ins: list, outs: list) -> None:
    """Writes the cotangent where the output is above 0, else 0, also where the cotangent is NaN."""
    np.copyto(outs[0], ins[0])
    np.putmask(outs[0], ins[1] <= 0, 0)


# ---- of three inputs --------------------------------------------------------------------------------------------------
def lerp(ins: list, outs: list) -> None:
    """Writes x + weight (y - x), from the nearer end, so that a weight of 1 gives y."""
    x, y, weight = ins
    span = y - x
    np.copyto(outs[0], np.where(np.abs(weight) < 0.5, x + weight * span, y - span * (1 - weight)))


def _where(ins: list, outs: list) -> None:
    np.copyto(outs[0], ins[2])
    np.copyto(outs[0], ins[1], where=ins[0])


WHERE = (selects, host("numpy", _where, NUMPY))
DIVISOR_LOOKS = (host("numpy", _look_for_zero, "integers are divided by NumPy, which looks for zeros before"),)
