"""Elementwise operations: arithmetic, comparison, logic, selection. One more operation is one entry, see ``declare``."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval
from funcnn.core.errors import DTypeError
from funcnn.core.graph import rescue
from funcnn.core.primitive import Implementation, Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu import elementwise as kernels
from funcnn.ops.common import (
    batch_elementwise,
    broadcast,
    cast,
    promoted,
    require_same_dtype,
    stored,
    to_tensor,
    unbroadcast,
)
from funcnn.ops.copies import copies
from funcnn.ops.declare import binary, flat_slope, holds, unary
from funcnn.ops.loops import activation, fast, pairwise, selects, with_kernel


def _sign(ins: list, outs: list) -> None:
    if ins[0].dtype.kind == "b":
        np.copyto(outs[0], ins[0])
    else:
        np.subtract(ins[0] > 0, ins[0] < 0, outs[0], dtype=outs[0].dtype)


def _no_zero(ins: list) -> None:
    if ins[1].dtype.kind != "f" and ins[0].size and not np.all(ins[1]):
        raise ZeroDivisionError("integer division: the divisor contains a zero; convert to float for inf and nan")


def _ties(g: Tensor, x: Tensor, y: Tensor, loses: Tensor) -> Tensor:
    """The gradient of an extremum: halved where equal, nothing where it loses; all of it where one is NaN."""
    return where(eq(x, y), mul(g, 0.5), where(loses, 0.0, g))


# ---- comparison and logic ---------------------------------------------------------------------------------------------
eq = binary("eq", np.equal, None, None, "``input == other``, elementwise, as bool.", dtype=dtypes.bool_)
ne = binary("ne", np.not_equal, None, None, "``input != other``, elementwise, as bool.", dtype=dtypes.bool_)
lt = binary("lt", np.less, None, None, "``input < other``, elementwise, as bool.", dtype=dtypes.bool_)
le = binary("le", np.less_equal, None, None, "``input <= other``, elementwise, as bool.", dtype=dtypes.bool_)
gt = binary("gt", np.greater, None, None, "``input > other``, elementwise, as bool.", dtype=dtypes.bool_)
ge = binary("ge", np.greater_equal, None, None, "``input >= other``, elementwise, as bool.", dtype=dtypes.bool_)
logical_and = binary("logical_and", np.logical_and, None, None, "Both true (non-zero).", dtype=dtypes.bool_)
logical_or = binary("logical_or", np.logical_or, None, None, "Either true (non-zero).", dtype=dtypes.bool_)
logical_xor = binary("logical_xor", np.logical_xor, None, None, "Just one true (non-zero).", dtype=dtypes.bool_)
logical_not = unary("logical_not", np.logical_not, None, "Not true (zero).", to_float=False, dtype=dtypes.bool_)
bitwise_and = binary("bitwise_and", np.bitwise_and, None, None, "Bitwise and of integers or bools.", kinds="biu")
bitwise_or = binary("bitwise_or", np.bitwise_or, None, None, "Bitwise or of integers or bools.", kinds="biu")
bitwise_xor = binary(
    "bitwise_xor", np.bitwise_xor, None, None, "Bitwise exclusive or of integers or bools.", kinds="biu"
)
bitwise_not = unary("bitwise_not", np.invert, None, "Bitwise not of integers or bools.", to_float=False, kinds="biu")
bitwise_left_shift = binary("bitwise_left_shift", np.left_shift, None, None, "``input << other``.", kinds="iu")
bitwise_right_shift = binary("bitwise_right_shift", np.right_shift, None, None, "``input >> other``.", kinds="iu")
isnan = unary("isnan", np.isnan, None, "Where the element is NaN.", to_float=False, dtype=dtypes.bool_)
isinf = unary(
    "isinf", np.isinf, None, "Where the element is plus or minus infinity.", to_float=False, dtype=dtypes.bool_
)
isfinite = unary("isfinite", np.isfinite, None, "Where the element is finite.", to_float=False, dtype=dtypes.bool_)

# ---- arithmetic -------------------------------------------------------------------------------------------------------
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
)
remainder = binary(
    "remainder",
    np.remainder,
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(mul(g, floor_divide(x, y))),
    "Python's ``input % other``, with the sign of ``other``.",
    kinds="iuf",
    check=_no_zero,
)
fmod = binary(
    "fmod",
    np.fmod,
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(mul(g, div(x, y, rounding_mode="trunc"))),
    "C's remainder, with the sign of ``input``.",
    kinds="iuf",
    check=_no_zero,
)
maximum = binary(
    "maximum", pairwise("maximum"),
    lambda g, x, y, o: _ties(g, x, y, lt(x, y)), lambda g, x, y, o: _ties(g, x, y, lt(y, x)),
    "The larger of two; NaN wins; ties share the gradient.",
)  # fmt: skip
minimum = binary(
    "minimum", pairwise("minimum"),
    lambda g, x, y, o: _ties(g, x, y, gt(x, y)), lambda g, x, y, o: _ties(g, x, y, gt(y, x)),
    "The smaller of two; NaN wins; ties share the gradient.",
)  # fmt: skip
fmax = binary(
    "fmax", np.fmax,
    lambda g, x, y, o: where(logical_or(ge(x, y), isnan(y)), g, 0.0),
    lambda g, x, y, o: where(logical_or(ge(x, y), isnan(y)), 0.0, g),
    "The larger of two, the number where one is NaN.",
)  # fmt: skip
fmin = binary(
    "fmin", np.fmin,
    lambda g, x, y, o: where(logical_or(le(x, y), isnan(y)), g, 0.0),
    lambda g, x, y, o: where(logical_or(le(x, y), isnan(y)), 0.0, g),
    "The smaller of two, the number where one is NaN.",
)  # fmt: skip
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
    return x, mul(y, stored(f"{name}: alpha", alpha, dtype))


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


# ---- selection --------------------------------------------------------------------------------------------------------
def _where_shape(condition: Any, x: Any, y: Any) -> tuple:
    if condition.dtype != dtypes.bool_:
        raise DTypeError(f"where: condition must be bool, got {condition.dtype}; use a comparison or .bool()")
    require_same_dtype("where", x, y)
    return (Aval(broadcast("where", tuple(condition.shape), tuple(x.shape), tuple(y.shape)), x.dtype),)


def _where(ins: list, outs: list) -> None:
    np.copyto(outs[0], ins[2])
    np.copyto(outs[0], ins[1], where=ins[0])


def _where_vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
    condition, x, y = ins
    return (
        None,
        lambda: unbroadcast(where(condition, g, 0.0), x._v.shape),
        lambda: unbroadcast(where(condition, 0.0, g), y._v.shape),
    )


where_p = Primitive("where", _where_shape, cpu=(selects, Implementation(_where)), vjp=_where_vjp)
object.__setattr__(where_p, "batch", batch_elementwise(where_p))


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition`` holds, else ``other``; all broadcast. With the condition alone: its indices."""
    condition = to_tensor(condition)
    if input is None and other is None:
        from funcnn.ops.index import nonzero

        return nonzero(condition, as_tuple=True)
    return where_p(condition, *promoted("where", input, other, exact=True))


clamp_p = activation("clamp", kernels.clamp, kernels.clamp_grad, 0.1, None)


def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:
    """``input`` limited to ``[min, max]``; a bound may be None, a number or a tensor. The gradient passes at a bound."""
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    bounds = [bound for bound in (min, max) if bound is not None]
    x = to_tensor(input)
    if x._v.dtype.kind == "f" and all(type(bound) in (int, float) and bound == bound for bound in bounds):
        return clamp_p(x, low=-inf if min is None else float(min), high=inf if max is None else float(max))
    x, *limits = promoted("clamp", x, *bounds, exact=True)
    if min is not None:
        x = _nearer(ge(x, limits[0]), lt(x, limits[0]), x, limits[0])
    return x if max is None else _nearer(le(x, limits[-1]), gt(x, limits[-1]), x, limits[-1])


def _nearer(inside: Tensor, beyond: Tensor, x: Tensor, limit: Tensor) -> Tensor:
    """``x`` or the limit; where one is NaN, and neither condition holds, NaN without a gradient."""
    return where(inside, x, where(beyond, limit, stop_gradient(add(x, limit))))


clip = clamp


def clone(input: Tensor) -> Tensor:
    """A copy with its own memory; gradients pass."""
    return clone_p(to_tensor(input))


clone_p = Primitive(
    "clone",
    shape=lambda x: (x,),
    cpu=copies,
    vjp=lambda g, ins, o: (g,),
    batch=lambda n, ins, batched: clone_p(ins[0]),
    keeps="",
)


def apart(out: Tensor, input: Tensor) -> Tensor:
    """``out``, or a copy of it where it shares the memory of ``input``: the result of an operation that promises a copy."""
    return clone(out) if _root(out) is _root(input) else out


def _root(t: Tensor) -> Tensor:
    while t._view is not None and (base := t._view.source()) is not None:
        t = base
    return t


stop_gradient_p = Primitive(
    "detach",
    shape=lambda x: (x,),
    view=lambda x: x,
    unview=lambda base, new: new,
    vjp=lambda g, ins, o: (None,),
    batch=lambda n, ins, batched: stop_gradient_p(ins[0]),
    keeps="",
)


def stop_gradient(input: Any) -> Tensor:
    """``input``, as a constant for every gradient."""
    return detach(to_tensor(input))


def detach(input: Tensor) -> Tensor:
    """The same values (and memory) without the history: ``backward`` and ``grad`` stop here."""
    from funcnn.core.context import ctx
    from funcnn.core.tensor import Loan, alias

    view = input._view
    traced = ctx.stage is not None or not isinstance(input._v, np.ndarray)
    saved, ctx.grad = ctx.grad, False
    try:
        if view is not None and not view.detached and traced and type(view) is not Loan:
            base = view.source()
            assert base is not None, "only a detached alias can lose its base"
            return view.prim(detach(base), **view.params)  # so that writes reach the base
        out = stop_gradient_p(input)
    finally:
        ctx.grad = saved
    return alias(out, input, stop_gradient_p, {}, detached=True)
