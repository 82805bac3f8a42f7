"""Arithmetic, elementwise. One more operation is one entry, see ``base.declare``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.errors import DTypeError
from funcnn.core.graph import rescue
from funcnn.core.primitive import Primitive
from funcnn.core.refusal import Refusal, first
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import loops as kernels
from funcnn.kernels.cpu.elementwise.launch import fast, pairwise, with_kernel
from funcnn.ops.base.declare import binary, flat_slope, holds, unary
from funcnn.ops.base.promote import promoted, stored, to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.comparison import eq
from funcnn.ops.elementwise.select import where


def _sign(ins: list, outs: list) -> None:
    if ins[0].dtype.kind == "b":
        np.copyto(outs[0], ins[0])
    else:
        np.subtract(ins[0] > 0, ins[0] < 0, outs[0], dtype=outs[0].dtype)


def _no_zero(ins: list) -> Refusal | None:
    if ins[1].dtype.kind == "f" or not ins[0].size or np.all(ins[1]):
        return None
    return first(ins[1] == 0, 1, ins[1], "a divisor is zero")


def _zero(meaning: str, words: tuple, ins: list) -> Exception:
    return ZeroDivisionError("integer division: the divisor contains a zero; convert to float for inf and nan")


_add = binary("add", pairwise("add"), lambda g, x, y, o: g, lambda g, x, y, o: g, "``input + other``.", keeps="")
_sub = binary(
    "sub",
    pairwise("sub", numpy="subtract"),
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(g),
    "``input - other``.",
    keeps="",
    kinds="iuf",
    takes_bools=False,
)
mul = binary(
    "mul",
    pairwise("mul", numpy="multiply"),
    lambda g, x, y, o: mul(g, y),
    lambda g, x, y, o: mul(g, x),
    "``input * other``, elementwise.",
)
true_divide = binary(
    "div",
    pairwise("div", numpy="divide"),
    lambda g, x, y, o: true_divide(g, y),
    lambda g, x, y, o: neg(mul(g, true_divide(true_divide(x, y), y))),
    "``input / other``, elementwise; integers become floats.",
    to_float=True,
)
floor_divide = binary(
    "floor_divide",
    np.floor_divide,
    lambda g, x, y, o: flat_slope(g),
    lambda g, x, y, o: flat_slope(g),
    "``floor(input / other)``. Raises ``ZeroDivisionError`` for an integer divisor of zero.",
    kinds="iuf",
    check=_no_zero,
    refuse=_zero,
)
remainder = binary(
    "remainder",
    np.remainder,
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(mul(g, floor_divide(x, y))),
    "Python's ``input % other``, with the sign of ``other``.",
    kinds="iuf",
    check=_no_zero,
    refuse=_zero,
)
fmod = binary(
    "fmod",
    np.fmod,
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(mul(g, div(x, y, rounding_mode="trunc"))),
    "C's remainder, with the sign of ``input``.",
    kinds="iuf",
    check=_no_zero,
    refuse=_zero,
)
_neg = fast("neg", 0.1, "negative")
neg = unary("neg", _neg, lambda g, x, o: neg(g), "``-input``.", keeps="", to_float=False, kinds="iuf")
abs = unary("abs", fast("absolute", 0.1), lambda g, x, o: mul(g, sign(x)), "``|input|``.", to_float=False)
sign = unary(
    "sign",
    with_kernel(kernels.sign, 0.1, _sign),
    lambda g, x, o: flat_slope(g),
    "-1, 0 or 1; 0 for NaN.",
    keeps="",
    to_float=False,
)
_square = unary(
    "square", fast("square", 0.1), lambda g, x, o: mul(g, mul(x, 2.0)), "``input ** 2``.", to_float=False, kinds="iuf"
)
reciprocal = unary("reciprocal", np.reciprocal, lambda g, x, o: neg(mul(g, mul(o, o))), "``1 / input``.", keeps="o")


def _over_vjp(g: Tensor, ins: list, o: Tensor, number: float) -> tuple:
    return (neg(mul(g, mul(o, true_divide(o, number)))),)


number_over_p = (
    Primitive(  # a number over a tensor; its derivative reads the quotient, so the tensor may be overwritten
        "number_over",
        shape=lambda x, number: (x,),
        cpu=lambda ins, outs, number: np.divide(number, ins[0], out=outs[0]),
        vjp=_over_vjp,
        batch=lambda n, ins, batched, number: number_over_p(ins[0], number=number),
        keeps="o",
    )
)


def rdiv(input: Tensor, number: Any) -> Tensor:
    """``number / input``."""
    if type(number) in (int, float) and number and holds(input, number):
        return rescue(number_over_p(input, number=number))
    return rescue(true_divide(number, input))


_trunc_divide = binary(
    "trunc_divide",
    lambda x, y, out: np.trunc(np.divide(x, y, out), out),
    lambda g, x, y, o: flat_slope(g),
    lambda g, x, y, o: flat_slope(g),
    "``trunc(input / other)`` of floating-point numbers.",
    keeps="",
    kinds="f",
)


def positive(input: Any) -> Tensor:
    """``+input``: the tensor itself. Raises ``DTypeError`` for bools."""
    x = to_tensor(input)
    if x._v.dtype.kind == "b":
        raise DTypeError(f"positive: not defined for {x.dtype}")
    return x


def square(input: Any) -> Tensor:
    """``input ** 2``; of bools as int64."""
    x = to_tensor(input)
    return _square(cast(x, dtypes.int64) if x._v.dtype.kind == "b" else x)


_ONE = 1


def add(input: Any, other: Any, *, alpha: float = _ONE) -> Tensor:
    """``input + alpha * other``, elementwise with broadcasting."""
    return _add(input, other) if alpha is _ONE else _add(*_weighted("add", input, other, alpha))


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


add.primitive, sub.primitive = _add.primitive, _sub.primitive  # type: ignore[attr-defined]
square.primitive = _square.primitive  # type: ignore[attr-defined]


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


def zero_safe(f: Callable, x: Tensor, at_zero: float = 0.0) -> Tensor:
    """``f`` of x >= 0 with ``f(0) = at_zero`` and the derivative 0 there, where that of ``f`` is infinite."""
    zero = eq(x, 0.0)
    return where(zero, at_zero, f(where(zero, 1.0, x)))
