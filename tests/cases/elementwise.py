"""Rows of the elementwise operations: arithmetic, comparison, logic, selection and mathematics.

Domains keep clear of poles, so that finite differences hold; what happens at kinks and special values is checked in
tests/ops/elementwise/test_elementwise.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import funcnn as fn
from funcnn.core import dtypes
from funcnn.ops.base import structure
from funcnn.ops.elementwise import closeness
from funcnn.ops.elementwise import math as fmath
from tests.cases.case import Arr, Case

_S = (2, 3)
_SMALL = Arr(_S, -2, 3, "int64")


def torch_function(name: str, **kwargs: Any) -> Callable:
    """``torch.<name>``, looked up when it is called."""

    def call(*args: Any) -> Any:
        import torch

        return getattr(torch, name)(*args, **kwargs)

    return call


def _function(name: str) -> Callable:
    return getattr(fn, name, None) or getattr(fmath, name)


def _erfinv(y: float) -> float:
    """Newton's method on ``math.erf``; converges from the logarithmic first guess on (-1, 1)."""
    x = math.copysign(math.sqrt(-math.log((1 - y) * (1 + y))) * 0.8, y)
    for _ in range(60):
        x -= (math.erf(x) - y) / (2 / math.sqrt(math.pi) * math.exp(-x * x))
    return x


def _loop(f: Callable) -> Callable:
    return lambda x: np.vectorize(f, otypes=[float])(x)


# name: low, high, NumPy's function; PyTorch has each under the same name
_UNARY: dict[str, tuple] = {
    "neg": (-2, 2, np.negative),
    "abs": (-2, 2, np.abs),
    "sign": (-2, 2, np.sign),
    "positive": (-2, 2, np.positive),
    "square": (-2, 2, np.square),
    "reciprocal": (0.5, 3, np.reciprocal),
    "ceil": (-3, 3, np.ceil),
    "floor": (-3, 3, np.floor),
    "trunc": (-3, 3, np.trunc),
    "fix": (-3, 3, np.fix),
    "round": (-3, 3, np.rint),
    "frac": (-3, 3, lambda x: x - np.trunc(x)),
    "exp": (-2, 2, np.exp),
    "exp2": (-2, 2, np.exp2),
    "expm1": (-1, 1, np.expm1),
    "log": (0.3, 3, np.log),
    "log2": (0.3, 3, np.log2),
    "log10": (0.3, 3, np.log10),
    "log1p": (-0.6, 2, np.log1p),
    "sqrt": (0.3, 3, np.sqrt),
    "rsqrt": (0.3, 3, lambda x: 1 / np.sqrt(x)),
    "sin": (-3, 3, np.sin),
    "cos": (-3, 3, np.cos),
    "tan": (-1.2, 1.2, np.tan),
    "asin": (-0.9, 0.9, np.arcsin),
    "acos": (-0.9, 0.9, np.arccos),
    "atan": (-2, 2, np.arctan),
    "sinh": (-2, 2, np.sinh),
    "cosh": (-2, 2, np.cosh),
    "tanh": (-2, 2, np.tanh),
    "asinh": (-2, 2, np.arcsinh),
    "acosh": (1.2, 3, np.arccosh),
    "atanh": (-0.9, 0.9, np.arctanh),
    "erf": (-2.5, 2.5, _loop(math.erf)),
    "erfc": (-2.5, 2.5, _loop(math.erfc)),
    "erfinv": (-0.9, 0.9, _loop(_erfinv)),
    "sigmoid": (-4, 4, lambda x: 1 / (1 + np.exp(-x))),
    "relu": (-2, 2, lambda x: np.maximum(x, 0)),
}

# name: first input, second input, NumPy's function
_BINARY: dict[str, tuple] = {
    "add": ((-2, 2), (-2, 2), np.add),
    "sub": ((-2, 2), (-2, 2), np.subtract),
    "mul": ((-2, 2), (-2, 2), np.multiply),
    "true_divide": ((-2, 2), (0.5, 2), np.divide),
    "floor_divide": ((-3, 3), (0.5, 2), np.floor_divide),
    "remainder": ((-3, 3), (0.5, 2), np.remainder),
    "fmod": ((-3, 3), (0.5, 2), np.fmod),
    "maximum": ((-2, 2), (-2, 2), np.maximum),
    "minimum": ((-2, 2), (-2, 2), np.minimum),
    "fmax": ((-2, 2), (-2, 2), np.fmax),
    "fmin": ((-2, 2), (-2, 2), np.fmin),
    "pow": ((0.3, 2), (-2, 3), np.power),
    "logaddexp": ((-2, 2), (-2, 2), np.logaddexp),
    "hypot": ((0.3, 2), (-2, 2), np.hypot),
    "atan2": ((-2, 2), (0.3, 2), np.arctan2),
}

_COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
_BITS = {"bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor}
_WHOLE: dict[str, Any] = {"grad": False, "dtypes": ("float32",)}


def _arithmetic() -> list[Case]:
    rows = []
    for name, (low, high, ref) in _UNARY.items():
        rows.append(Case(name, _function(name), (Arr(_S, low, high),), ref, torch_function(name)))
    for name, (one, two, ref) in _BINARY.items():
        f, theirs = _function(name), torch_function(name)
        rows.append(Case(name, f, (Arr(_S, *one), Arr(_S, *two)), ref, theirs))
        rows.append(Case(f"{name}-broadcast", f, (Arr((3, 1), *one), Arr((1, 4), *two)), ref, theirs))
        rows.append(Case(f"{name}-0d", f, (Arr(_S, *one), Arr((), *two)), ref, theirs))
    return rows


def _scalars() -> list[Case]:
    """A Python number on either side, whole and not; the dtype must stay the tensor's."""
    rows = []
    for name in ("add", "sub", "mul", "true_divide", "floor_divide", "remainder", "pow"):
        for number in (2, 1.5):
            rows += _scalar_rows(name, number)
    return rows


def _scalar_rows(name: str, number: float) -> list[Case]:
    f, theirs, ref, x = _function(name), torch_function(name), _BINARY[name][2], Arr(_S, 0.4, 2)
    return [
        Case(f"{name}-x-{number}", lambda x: f(x, number), (x,), lambda x: ref(x, number), lambda x: theirs(x, number)),
        Case(f"{name}-{number}-x", lambda x: f(number, x), (x,), lambda x: ref(number, x)),
    ]


def _comparisons() -> list[Case]:
    rows = []
    for name, ref in _COMPARE.items():
        f, theirs = _function(name), torch_function(name)
        rows.append(Case(name, f, (Arr((3, 1)), Arr((1, 4))), ref, theirs, grad=False))
        rows.append(Case(f"{name}-int", f, (_SMALL, _SMALL), ref, theirs, **_WHOLE))
    for name, ref in _BITS.items():
        f, theirs = _function(name), torch_function(name)
        rows.append(Case(name, f, (Arr((3, 1), -9, 9, "int64"), Arr((4,), -9, 9, "int64")), ref, theirs, **_WHOLE))
        rows.append(Case(f"{name}-bool", f, (Arr(_S, dtype="bool"), Arr(_S, dtype="bool")), ref, theirs, **_WHOLE))
    for name, ref in (("bitwise_left_shift", np.left_shift), ("bitwise_right_shift", np.right_shift)):
        pair = (Arr(_S, -40, 40, "int32"), Arr(_S, 0, 5, "int32"))
        rows.append(Case(name, _function(name), pair, ref, torch_function(name), **_WHOLE))
    for name, ref in (("isnan", np.isnan), ("isinf", np.isinf), ("isfinite", np.isfinite)):
        odd = np.array([[np.nan, 1.0, np.inf], [-np.inf, -0.0, 2.0]])
        rows.append(Case(name, _function(name), (odd,), ref, torch_function(name), grad=False))
    flags = (Arr(_S, dtype="bool"),)
    rows += [
        Case("logical_not", fn.logical_not, (_SMALL,), np.logical_not, torch_function("logical_not"), **_WHOLE),
        Case("bitwise_not", fn.bitwise_not, (_SMALL,), np.invert, torch_function("bitwise_not"), **_WHOLE),
        Case("bitwise_not-bool", fn.bitwise_not, flags, np.invert, torch_function("bitwise_not"), **_WHOLE),
    ]
    return rows


def _integers() -> list[Case]:
    rows = []
    for name in ("add", "sub", "mul", "floor_divide", "remainder", "fmod", "maximum", "minimum"):
        pair = (Arr(_S, -9, 9, "int64"), Arr(_S, 1, 5, "int64"))
        rows.append(Case(f"{name}-int", _function(name), pair, _BINARY[name][2], torch_function(name), **_WHOLE))
    pair = (Arr(_S, -4, 4, "int64"), Arr(_S, 0, 4, "int64"))
    rows.append(Case("pow-int", fmath.pow, pair, np.power, torch_function("pow"), **_WHOLE))
    rows.append(Case("div-int", fn.div, (_SMALL, Arr(_S, 1, 5, "int64")), np.divide, torch_function("div"), **_WHOLE))
    for name in ("neg", "abs", "sign", "square", "relu", "exp", "sqrt"):
        low = 0 if name == "sqrt" else -4
        ref = (lambda x: np.maximum(x, 0)) if name == "relu" else _UNARY[name][2]
        rows.append(
            Case(f"{name}-int", _function(name), (Arr(_S, low, 5, "int64"),), ref, torch_function(name), **_WHOLE)
        )
    return rows


def _torch_clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    import torch

    return torch.clamp(x, low, high)


def _selection() -> list[Case]:
    e = fn
    flags, two = Arr((3, 1), dtype="bool"), (Arr((3, 1)), Arr((1, 4)))
    return [
        Case("where", e.where, (flags, *two), np.where, torch_function("where")),
        Case("where-scalar", lambda c, x: e.where(c, x, 0.5), (flags, Arr((1, 4))), lambda c, x: np.where(c, x, 0.5)),
        Case("where-scalar-first", lambda c, x: e.where(c, 2, x), (flags, Arr((4,))), lambda c, x: np.where(c, 2, x)),
        Case("where-0d", e.where, (Arr((), dtype="bool"), Arr(_S), Arr(())), np.where, torch_function("where")),
        Case("clamp", lambda x: e.clamp(x, -1, 0.5), (Arr(_S),), lambda x: np.clip(x, -1, 0.5),
             lambda x: _torch_clamp(x, -1, 0.5)),
        Case("clamp-min", lambda x: e.clamp(x, min=0.1), (Arr(_S),), lambda x: np.maximum(x, 0.1),
             lambda x: _torch_clamp(x, 0.1)),
        Case("clamp-max", lambda x: e.clip(x, max=0.1), (Arr(_S),), lambda x: np.minimum(x, 0.1),
             lambda x: _torch_clamp(x, None, 0.1)),
        Case("clamp-tensors", e.clamp, (Arr(_S), Arr((3,), -1, 0), Arr((2, 1), 0.1, 1)), np.clip, _torch_clamp),
        Case("lerp", fmath.lerp, (Arr(_S), Arr(_S), Arr((3,), 0, 1)), lambda x, y, w: x + w * (y - x),
             torch_function("lerp")),
        Case("lerp-scalar", lambda x, y: fmath.lerp(x, y, 0.25), (Arr(_S), Arr(_S)), lambda x, y: x + 0.25 * (y - x)),
        Case("add-alpha", lambda x, y: e.add(x, y, alpha=0.5), (Arr(_S), Arr((3,))), lambda x, y: x + 0.5 * y),
        Case("sub-alpha", lambda x, y: e.sub(x, y, alpha=3), (Arr(_S), Arr((3,))), lambda x, y: x - 3 * y),
        Case("div", e.div, (Arr(_S), Arr((3,), 0.5, 2)), np.divide, torch_function("div")),
        Case("number-over", lambda x: 0.7 / x, (Arr(_S, 0.5, 2),), lambda x: 0.7 / x, lambda x: 0.7 / x),
        Case("div-floor", lambda x, y: e.div(x, y, rounding_mode="floor"), (Arr(_S), Arr((3,), 0.5, 2)),
             np.floor_divide, torch_function("div", rounding_mode="floor")),
        Case("div-trunc", lambda x, y: e.div(x, y, rounding_mode="trunc"), (Arr(_S, -4, 4), Arr((3,), 0.5, 2)),
             lambda x, y: np.trunc(x / y), torch_function("div", rounding_mode="trunc")),
        Case("div-trunc-int", lambda x, y: e.div(x, y, rounding_mode="trunc"),
             (Arr(_S, -9, 9, "int64"), Arr((3,), 1, 5, "int64")), lambda x, y: np.trunc(x / y).astype(np.int64),
             torch_function("div", rounding_mode="trunc"), **_WHOLE),
        Case("round-decimals", lambda x: fmath.round(x, decimals=1), (Arr(_S),), lambda x: np.round(x, 1),
             torch_function("round", decimals=1)),
        Case("round-decimals-negative", lambda x: fmath.round(x, decimals=-1), (Arr(_S, -99, 99),),
             lambda x: np.round(x, -1), torch_function("round", decimals=-1)),
        Case("square-of-itself", lambda x: e.mul(x, x), (Arr(_S),), np.square),
        Case("clone", e.clone, (Arr(_S),), np.copy, torch_function("clone")),
        Case("stop_gradient", e.stop_gradient, (Arr(_S),), np.copy, grad=False),
        Case("isclose", lambda x: closeness.isclose(x, e.add(x, np.array([0.0, 1e-9, 1e-2]))), (Arr(_S),),
             lambda x: np.isclose(x, x + np.array([0.0, 1e-9, 1e-2])), grad=False, dtypes=("float64",)),
        Case("cast-half-and-back", lambda x: structure.cast(structure.cast(x, dtypes.float32), dtypes.float64), (Arr(_S),),
             lambda x: x.astype(np.float32).astype(np.float64), grad=False, dtypes=("float64",)),
        Case("cast", lambda x: structure.cast(e.square(structure.cast(x, dtypes.float64)), dtypes.float64), (Arr(_S),),
             np.square, dtypes=("float64",)),
    ]  # fmt: skip


ROWS: list[Case] = [*_arithmetic(), *_scalars(), *_comparisons(), *_integers(), *_selection()]
