"""Arithmetic, elementwise. One more operation is one entry, see ``base.declare``."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError
from funcnn.core.graph import rescue
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import functions, host
from funcnn.kernels.cpu.elementwise import loops as kernels
from funcnn.kernels.cpu.elementwise.launch import Loop, with_kernel
from funcnn.ops.base import costs
from funcnn.ops.base.declare import binary, flat_slope, holds, unary
from funcnn.ops.base.promote import promoted, stored, to_tensor
from funcnn.ops.base.registry import note, operation
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.comparison import eq
from funcnn.ops.elementwise.select import where


def _zero(meaning: str, words: tuple, ins: list) -> Exception:
    return ZeroDivisionError("integer division: the divisor contains a zero; convert to float for inf and nan")


_add = binary("add", kernels.add, lambda g, x, y, o: g, lambda g, x, y, o: g, "``input + other``.", keeps="", ns=0.08)
_sub = binary(
    "sub",
    kernels.sub,
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(g),
    "``input - other``.",
    keeps="",
    kinds="iuf",
    takes_bools=False,
    numpy="subtract",
    ns=0.08,
)
mul = binary(
    "mul",
    kernels.mul,
    lambda g, x, y, o: mul(g, y),
    lambda g, x, y, o: mul(g, x),
    "``input * other``, elementwise.",
    numpy="multiply",
    ns=0.08,
)
true_divide = binary(
    "div",
    kernels.div,
    lambda g, x, y, o: true_divide(g, y),
    lambda g, x, y, o: neg(mul(g, true_divide(true_divide(x, y), y))),
    "``input / other``, elementwise; integers become floats.",
    to_float=True,
    numpy="divide",
    ns=0.08,
)
floor_divide = binary(
    "floor_divide",
    functions.floor_divide,
    lambda g, x, y, o: flat_slope(g),
    lambda g, x, y, o: flat_slope(g),
    "``floor(input / other)``. Raises ``ZeroDivisionError`` for an integer divisor of zero.",
    kinds="iuf",
    looks=host.DIVISOR_LOOKS,
    refuse=_zero,
    numpy=host.divided(np.floor_divide),
    flops=2,
)
remainder = binary(
    "remainder",
    functions.remainder,
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(mul(g, floor_divide(x, y))),
    "Python's ``input % other``, with the sign of ``other``.",
    kinds="iuf",
    looks=host.DIVISOR_LOOKS,
    refuse=_zero,
    numpy=host.divided(np.remainder),
    flops=4,
)
fmod = binary(
    "fmod",
    functions.fmod,
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(mul(g, div(x, y, rounding_mode="trunc"))),
    "C's remainder, with the sign of ``input``.",
    kinds="iuf",
    looks=host.DIVISOR_LOOKS,
    refuse=_zero,
    numpy=host.divided(np.fmod),
    flops=4,
)
neg = unary(
    "neg",
    kernels.neg,
    lambda g, x, o: neg(g),
    "``-input``.",
    keeps="",
    to_float=False,
    kinds="iuf",
    numpy="negative",
    ns=0.1,
)
abs = unary("abs", kernels.absolute, lambda g, x, o: mul(g, sign(x)), "``|input|``.", to_float=False, ns=0.1)
sign = unary(
    "sign",
    kernels.sign,
    lambda g, x, o: flat_slope(g),
    "-1, 0 or 1; 0 for NaN.",
    keeps="",
    to_float=False,
    numpy=host.sign,
    ns=0.1,
)
_square = unary(
    "square",
    kernels.square,
    lambda g, x, o: mul(g, mul(x, 2.0)),
    "``input ** 2``.",
    to_float=False,
    kinds="iuf",
    recorded="pow",
    ns=0.1,
)
reciprocal = unary(
    "reciprocal", functions.reciprocal, lambda g, x, o: neg(mul(g, mul(o, o))), "``1 / input``.", keeps="o"
)


def _over_vjp(g: Tensor, ins: list, o: Tensor, number: float) -> tuple:
    return (neg(mul(g, mul(o, true_divide(o, number)))),)


number_over_p = (
    Primitive(  # a number over a tensor; its derivative reads the quotient, so the tensor may be overwritten
        "number_over",
        shape=lambda x, number: (x,),
        cpu=with_kernel(Loop(functions.number_over), host.number_over, inf),
        vjp=_over_vjp,
        batch=lambda n, ins, batched, number: number_over_p(ins[0], number=number),
        keeps="o",
        scalar=functions.number_over.scalar,
        flops=costs.each(1),
    )
)


def rdiv(input: Tensor, number: Any) -> Tensor:
    """``number / input``."""
    if type(number) in (int, float) and number and holds(input, number):
        return rescue(number_over_p(input, number=number))
    return rescue(true_divide(number, input))


_trunc_divide = binary(
    "trunc_divide",
    functions.trunc_divide,
    lambda g, x, y, o: flat_slope(g),
    lambda g, x, y, o: flat_slope(g),
    "``trunc(input / other)`` of floating-point numbers.",
    keeps="",
    kinds="f",
    numpy=host.trunc_divide,
    flops=2,
    method=False,
)


@operation(inplace=False)
def positive(input: Any) -> Tensor:
    """``+input``: the tensor itself. Raises ``DTypeError`` for bools."""
    x = to_tensor(input)
    if x._v.dtype.kind == "b":
        raise DTypeError(f"positive: not defined for {x.dtype}")
    return x


@operation(_square.primitive)
def square(input: Any) -> Tensor:
    """``input ** 2``; of bools as int64."""
    x = to_tensor(input)
    return _square(cast(x, dtypes.int64) if x._v.dtype.kind == "b" else x)


_ONE = 1


@operation(_add.primitive)
def add(input: Any, other: Any, *, alpha: float = _ONE) -> Tensor:
    """``input + alpha * other``, elementwise with broadcasting."""
    return _add(input, other) if alpha is _ONE else _add(*_weighted("add", input, other, alpha))


@operation(_sub.primitive)
def sub(input: Any, other: Any, *, alpha: float = _ONE) -> Tensor:
    """``input - alpha * other``, elementwise with broadcasting."""
    return _sub(input, other) if alpha is _ONE else _sub(*_weighted("sub", input, other, alpha))


def _weighted(name: str, input: Any, other: Any, alpha: Any) -> tuple[Tensor, Tensor]:
    """The operands in their common dtype, the second times ``alpha``. Raises ``DTypeError`` for one of a higher kind."""
    x, y = promoted(name, input, other)
    dtype = x._v.dtype
    kind = alpha._v.dtype.kind if isinstance(alpha, Tensor) else dtypes.scalar_dtype(alpha).kind
    if (kind == "f" and dtype.kind != "f") or (kind == "b" and dtype.kind != "b"):
        raise DTypeError(f"{name}: alpha={alpha!r} does not go with a result of {dtype}")
    return x, mul(y, stored(f"{name}: alpha", alpha, dtype, y.device))


@operation(true_divide.primitive)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; ``rounding_mode`` "floor" or "trunc" rounds the quotient and keeps integers integer."""
    if rounding_mode is None:
        return true_divide(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}")
    x, y = promoted("div", input, other)
    if x._v.dtype.kind == "f":
        return _trunc_divide(x, y)
    return floor_divide(sub(x, fmod(x, y)), y)


note("true_divide", true_divide, inplace=False)


def zero_safe(f: Callable, x: Tensor, at_zero: float = 0.0) -> Tensor:
    """``f`` of x >= 0 with ``f(0) = at_zero`` and the derivative 0 there, where that of ``f`` is infinite."""
    zero = eq(x, 0.0)
    return where(zero, at_zero, f(where(zero, 1.0, x)))
