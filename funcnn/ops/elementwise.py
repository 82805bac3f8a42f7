"""Elementwise operations: the two factories, arithmetic, comparison, logic, selection.

One more operation is one entry: its NumPy loop and its derivatives. In a derivative ``g`` is the cotangent, ``x`` (and
``y``) the inputs, ``o`` the output; ``keeps`` says whose numbers it reads. Inputs broadcast and promote as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Aval, Tracer
from funcnn.core.errors import DTypeError
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor, constant
from funcnn.kernels.cpu import elementwise as kernels
from funcnn.ops.common import (
    aligned,
    batch_elementwise,
    broadcast,
    floating,
    operand,
    promoted,
    require_same_dtype,
    to_tensor,
    unbroadcast,
)
from funcnn.ops.loops import fast, pairwise
from funcnn.ops.reduce_cpu import copies

_NUMBERS = frozenset((int, float))


def flat_slope(g: Tensor) -> Tensor:
    """The gradient of a step: zeros, also where the cotangent is infinite or NaN."""
    from funcnn.ops.creation import zeros_like

    return zeros_like(g)


def _sign_loop(x: np.ndarray, out: np.ndarray) -> None:
    np.subtract(x > 0, x < 0, out, dtype=out.dtype)


def unary(
    name: str,
    loop: Any,
    d: Callable | None,
    doc: str,
    keeps: str = "i",
    to_float: bool = True,
    dtype: Any = None,
    kinds: str = "biuf",
) -> Callable[[Any], Tensor]:
    """Declare an elementwise function of one input. loop: ``loop(array, out)``, or implementations; ``d(g, x, o)`` is its vjp.

    to_float: integers become floats first. dtype: of the output, where it is not the input's. kinds: NumPy kinds taken.
    """

    def shape(x: Any) -> tuple:
        if x.dtype.kind not in kinds:
            raise DTypeError(f"{name}: not defined for {x.dtype}")
        return (x if dtype is None else Aval(x.shape, dtype),)

    def vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
        assert d is not None
        return (d(g, ins[0], o),)

    prim = Primitive(
        name,
        shape,
        cpu=loop if isinstance(loop, tuple) else lambda ins, outs: loop(ins[0], outs[0]),
        vjp=None if d is None else vjp,
        batch=lambda n, ins, batched: prim(ins[0]),
        keeps=keeps,
    )

    def function(input: Any) -> Tensor:
        x = input if isinstance(input, Tensor) else operand(name, input)
        return prim(floating(x) if to_float else x)

    return _named(function, name, doc, prim)


def binary(
    name: str,
    loop: Any,
    dx: Callable | None,
    dy: Callable | None,
    doc: str,
    keeps: str = "i",
    to_float: bool = False,
    dtype: Any = None,
    kinds: str = "biuf",
    check: Callable | None = None,
) -> Callable[[Any, Any], Tensor]:
    """Declare an elementwise function of two broadcast inputs; ``dx(g, x, y, o)`` and ``dy`` before summing over axes."""

    prim = Primitive(
        name,
        _broadcast_shape(name, kinds, dtype),
        cpu=loop if isinstance(loop, tuple) else lambda ins, outs: loop(ins[0], ins[1], outs[0]),
        vjp=None if dx is None or dy is None else _broadcast_vjp(dx, dy),
        batch=lambda n, ins, batched: prim(*aligned(ins, batched)),
        keeps=keeps,
        check=check,
    )

    def function(input: Any, other: Any) -> Tensor:
        if isinstance(input, Tensor) and isinstance(other, Tensor):
            dtype = input._v.dtype
            if dtype is other._v.dtype and (not to_float or dtype.kind == "f"):
                return prim(input, other)
        elif type(other) in _NUMBERS and isinstance(input, Tensor) and _holds(input, other):
            return prim(input, constant(np.array(other, input._v.dtype)))
        elif type(input) in _NUMBERS and isinstance(other, Tensor) and _holds(other, input):
            return prim(constant(np.array(input, other._v.dtype)), other)
        x, y = promoted(name, input, other)
        return prim(floating(x), floating(y)) if to_float else prim(x, y)

    return _named(function, name, doc, prim)


def _holds(t: Tensor, number: float) -> bool:
    """Whether a number simply takes a tensor's dtype: the common case, kept apart from promotion for speed."""
    value = t._v
    return value.dtype.kind == "f" and -6e4 < number < 6e4 and not (isinstance(value, Tracer) and value.weak)


def _broadcast_shape(name: str, kinds: str, dtype: Any) -> Callable:
    def shape(x: Any, y: Any) -> tuple:
        if x.dtype is not y.dtype:
            require_same_dtype(name, x, y)
        if x.dtype.kind not in kinds:
            raise DTypeError(f"{name}: not defined for {x.dtype}")
        left, right = x.shape, y.shape
        if left == right or not right or not left:
            like = x if left else y
            return (like,) if dtype is None else (Aval(like.shape, dtype),)
        return (Aval(broadcast(name, tuple(left), tuple(right)), dtype or x.dtype),)

    return shape


def _broadcast_vjp(dx: Callable, dy: Callable) -> Callable:
    def vjp(g: Tensor, ins: list, o: Tensor) -> tuple:
        x, y = ins
        return lambda: unbroadcast(dx(g, x, y, o), x._v.shape), lambda: unbroadcast(dy(g, x, y, o), y._v.shape)

    return vjp


def _named(function: Callable, name: str, doc: str, prim: Primitive) -> Callable:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    function.primitive = prim  # type: ignore[attr-defined]
    return function


def zero(*_: Any) -> None:
    """The derivative of a piecewise constant function: no cotangent at all."""


def _no_zero(ins: list) -> None:
    if ins[1].dtype.kind != "f" and not np.all(ins[1]):
        raise ZeroDivisionError("integer division: the divisor contains a zero; convert to float for inf and nan")


def _ties(g: Tensor, x: Tensor, y: Tensor, wins: Tensor) -> Tensor:
    return where(eq(x, y), mul(g, 0.5), where(wins, g, 0.0))


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
_add = binary(
    "add", pairwise(kernels.add, np.add), lambda g, x, y, o: g, lambda g, x, y, o: g, "``input + other``.", keeps=""
)
_sub = binary(
    "sub",
    pairwise(kernels.sub, np.subtract),
    lambda g, x, y, o: g,
    lambda g, x, y, o: neg(g),
    "``input - other``.",
    keeps="",
    kinds="iuf",
)
mul = binary(
    "mul",
    pairwise(kernels.mul, np.multiply),
    lambda g, x, y, o: mul(g, y),
    lambda g, x, y, o: mul(g, x),
    "``input * other``, elementwise.",
)
true_divide = binary(
    "div",
    pairwise(kernels.div, np.divide),
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
    "maximum", pairwise(kernels.maximum, np.maximum),
    lambda g, x, y, o: _ties(g, x, y, gt(x, y)), lambda g, x, y, o: _ties(g, x, y, gt(y, x)),
    "The larger of two; NaN wins; ties share the gradient.",
)  # fmt: skip
minimum = binary(
    "minimum", pairwise(kernels.minimum, np.minimum),
    lambda g, x, y, o: _ties(g, x, y, lt(x, y)), lambda g, x, y, o: _ties(g, x, y, lt(y, x)),
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
abs = unary("abs", np.absolute, lambda g, x, o: mul(g, sign(x)), "``|input|``.", to_float=False)
sign = unary(
    "sign", _sign_loop, lambda g, x, o: flat_slope(g), "-1, 0 or 1; 0 for NaN.", keeps="", to_float=False, kinds="iuf"
)
positive = unary("positive", np.positive, lambda g, x, o: g, "``+input``.", keeps="", to_float=False, kinds="iuf")
square = unary("square", np.square, lambda g, x, o: mul(g, mul(x, 2.0)), "``input ** 2``.", to_float=False, kinds="iuf")
reciprocal = unary("reciprocal", np.reciprocal, lambda g, x, o: neg(mul(g, mul(o, o))), "``1 / input``.", keeps="o")


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input + alpha * other``, elementwise with broadcasting."""
    return _add(input, other if alpha == 1 else mul(other, alpha))


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``input - alpha * other``, elementwise with broadcasting."""
    return _sub(input, other if alpha == 1 else mul(other, alpha))


add.primitive, sub.primitive = _add.primitive, _sub.primitive  # type: ignore[attr-defined]


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
        from funcnn.ops.math import trunc

        return trunc(true_divide(x, y))
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


where_p = Primitive("where", _where_shape, cpu=_where, vjp=_where_vjp)
object.__setattr__(where_p, "batch", batch_elementwise(where_p))


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition`` holds, else ``other``; all broadcast. With the condition alone: its indices."""
    condition = to_tensor(condition)
    if input is None and other is None:
        from funcnn.ops.index import nonzero

        return nonzero(condition, as_tuple=True)
    return where_p(condition, *promoted("where", input, other))


def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:
    """``input`` limited to ``[min, max]``; a bound may be None, a number or a tensor. The gradient passes at a bound."""
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    bounds = [bound for bound in (min, max) if bound is not None]
    x, *limits = promoted("clamp", to_tensor(input), *bounds)
    if min is not None:
        x = where(logical_or(ge(x, limits[0]), isnan(x)), x, limits[0])  # a NaN bound wins, as a NaN element does
    return x if max is None else where(logical_or(le(x, limits[-1]), isnan(x)), x, limits[-1])


clip = clamp


def clone(input: Tensor) -> Tensor:
    """A copy with its own memory; gradients pass."""
    return clone_p(input)


clone_p = Primitive(
    "clone",
    shape=lambda x: (x,),
    cpu=copies,
    vjp=lambda g, ins, o: (g,),
    batch=lambda n, ins, batched: clone_p(ins[0]),
    keeps="",
)

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
    from funcnn.core.tensor import alias

    view = input._view
    traced = ctx.stage is not None or not isinstance(input._v, np.ndarray)
    saved, ctx.grad = ctx.grad, False
    try:
        if view is not None and not view.detached and traced:
            return view.prim(detach(view.base), **view.params)  # so that writes reach the base
        out = stop_gradient_p(input)
    finally:
        ctx.grad = saved
    return alias(out, input, stop_gradient_p, {}, detached=True)
