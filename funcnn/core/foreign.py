"""What is asked of a primitive that a user declares: its arguments, what its functions return, and its derivatives.

funcnn's own primitives are tested instead; nothing here costs a call of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

from funcnn.core.errors import DTypeError, ShapeError
from funcnn.core.tensor import Tensor

_OURS = __name__.partition(".")[0] + "."


def is_foreign(function: Callable) -> bool:
    """Whether a function stands outside this package."""
    return not (getattr(function, "__module__", None) or "").startswith(_OURS)


def misapplied(prim: Any, ins: tuple, params: dict) -> TypeError | None:
    """Returns the error for arguments that no application could take; None where that is not why one failed."""
    for at, t in enumerate(ins):
        if not isinstance(t, Tensor):
            return TypeError(
                f"{prim.name}: input {at} must be a tensor, got a {type(t).__name__}; pass fn.tensor(...) of it"
            )
    try:
        signature(prim.shape).bind(*ins, **params)
    except TypeError as error:
        return TypeError(
            f"{prim.name}: its shape rule does not take {len(ins)} inputs and parameters {[*params]}: {error}"
        )
    except ValueError:  # a built-in function, which has no signature
        return None
    return None


def refuse_returned(prim: Any, result: Any, outs: list) -> None:
    """Raises ``TypeError`` where a function on arrays returned its result and filled no output."""
    if not any(result is out for out in outs):
        raise TypeError(
            f"{prim.name}: its function on arrays returned a {type(result).__name__}; it has to fill its outputs instead: "
            "outs[0][...] = ..."
        )


def compared(owner: str, what: str, derivative: Any, shape: tuple, dtype: Any) -> Any:
    """Returns the derivative of an input, if it is like it. Raises ``TypeError``, ``ShapeError`` or ``DTypeError``."""
    if derivative is None:
        return None
    if not isinstance(derivative, Tensor):
        got = type(derivative).__name__
        raise TypeError(f"{owner}: its derivative of {what} is a {got}; expected a tensor or None")
    value = derivative._v
    if tuple(value.shape) != tuple(shape):
        raise ShapeError(
            f"{owner}: its derivative of {what} has the shape {tuple(value.shape)}, and the input {tuple(shape)}; sum over "
            "axes that were broadcast"
        )
    if value.dtype != dtype:
        raise DTypeError(
            f"{owner}: its derivative of {what} is {value.dtype}, and the input {dtype}; cast it with .to(...)"
        )
    return derivative


def checked(name: str, vjp: Callable) -> Callable:
    """Returns a user's vjp rule, each derivative of which is compared with its input."""

    @wraps(vjp)
    def rule(g: Any, ins: list, outs: Any, **params: Any) -> tuple:
        made = vjp(g, ins, outs, **params)
        if not isinstance(made, (tuple, list)) or len(made) != len(ins):
            got = f"{len(made)} derivatives" if isinstance(made, (tuple, list)) else f"a {type(made).__name__}"
            raise TypeError(
                f"{name}: its vjp rule gives {got}; expected a tuple with one, or None, for each of {len(ins)} inputs"
            )
        return tuple([
            _compared_later(name, f"input {at}", one, x) for at, (one, x) in enumerate(zip(made, ins, strict=True))
        ])  # fmt: skip

    return rule


def _compared_later(name: str, what: str, one: Any, x: Tensor) -> Any:
    shape, dtype = x._v.shape, x._v.dtype
    if callable(one) and not isinstance(one, Tensor):
        return lambda: compared(name, what, one(), shape, dtype)
    return compared(name, what, one, shape, dtype)
