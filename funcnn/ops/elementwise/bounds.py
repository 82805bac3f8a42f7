"""The larger and the smaller of two, and limits: what chooses by comparing its inputs."""

from __future__ import annotations

from math import inf
from typing import Any

from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.elementwise import functions
from funcnn.kernels.cpu.elementwise import loops as kernels
from funcnn.ops.base.declare import binary
from funcnn.ops.base.promote import promoted, to_tensor
from funcnn.ops.base.registry import note, operation
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.elementwise.comparison import eq, ge, gt, isnan, le, logical_or, lt
from funcnn.ops.elementwise.curves import activation
from funcnn.ops.elementwise.select import where
from funcnn.ops.movement.views import stop_gradient


def _ties(g: Tensor, x: Tensor, y: Tensor, loses: Tensor) -> Tensor:
    """The gradient of an extremum: halved where equal, nothing where it loses; all of it where one is NaN."""
    return where(eq(x, y), mul(g, 0.5), where(loses, 0.0, g))


maximum = binary(
    "maximum", kernels.maximum,
    lambda g, x, y, o: _ties(g, x, y, lt(x, y)), lambda g, x, y, o: _ties(g, x, y, lt(y, x)),
    "The larger of two; NaN wins; ties share the gradient.", ns=0.08, inplace=False,
)  # fmt: skip


minimum = binary(
    "minimum", kernels.minimum,
    lambda g, x, y, o: _ties(g, x, y, gt(x, y)), lambda g, x, y, o: _ties(g, x, y, gt(y, x)),
    "The smaller of two; NaN wins; ties share the gradient.", ns=0.08, inplace=False,
)  # fmt: skip


fmax = binary(
    "fmax", functions.fmax,
    lambda g, x, y, o: where(logical_or(ge(x, y), isnan(y)), g, 0.0),
    lambda g, x, y, o: where(logical_or(ge(x, y), isnan(y)), 0.0, g),
    "The larger of two, the number where one is NaN.", inplace=False,
)  # fmt: skip


fmin = binary(
    "fmin", functions.fmin,
    lambda g, x, y, o: where(logical_or(le(x, y), isnan(y)), g, 0.0),
    lambda g, x, y, o: where(logical_or(le(x, y), isnan(y)), 0.0, g),
    "The smaller of two, the number where one is NaN.", inplace=False,
)  # fmt: skip


clamp_p = activation("clamp", kernels.clamp, kernels.clamp_grad, 0.1, None)


@operation(clamp_p)
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
note("clip", clip)
